"""Speed and accuracy of a preset's training recipe on one accelerator, without TFX and without TensorFlow.

Where vitpipe is installed, prepare the images (17.6 MiB) and the wheels (5.5 MiB) that the accelerator's machine needs.
Git ignores both, so name them explicitly when you copy the checkout there.

    vitpipe data prepare cifar10
    python benchmarks/train_accelerator.py --pack data/cifar10/span-1 data/cifar10.npz
    benchmarks/wheels.sh

The other machine needs Python 3.12 with jax (with CUDA for an NVIDIA GPU), numpy, pillow, pyyaml, scipy, absl-py, h5py,
ml-dtypes, packaging and rich; the wheels provide everything else. In its checkout, with $OUT set to a folder for the
results, run a probe of two epochs and then the preset. If the probe fails, the preset is trained without a CLS token:

    set -o pipefail; export PYTHONUNBUFFERED=1; SITE=$(mktemp -d)
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target $SITE .whl/*.whl || exit
    export PYTHONPATH=$SITE:. KERAS_BACKEND=jax JAX_COMPILATION_CACHE_DIR=$SITE/cache
    R="python3 benchmarks/train_accelerator.py data/cifar10.npz --peak-tflops 790 --out $OUT/results.jsonl"
    H=; timeout 150 $R --epochs 2 2>&1 | tee $OUT/probe.log || H="--set model.pool=mean"
    $R $H --save $OUT/preset.npz 2>&1 | tee $OUT/preset.log

To train a stronger recipe, run the first three lines above and then:

    R="python3 benchmarks/train_accelerator.py data/cifar10.npz --peak-tflops 790 --out $OUT/results.jsonl"
    S="--set model.pool=mean --set model.conv_stem=true --set model.mimetic=true --set training.optimizer=muon"
    S="$S --set training.learning_rate=2e-3 --set augment.mixing_probability=0.5 --set augment.erase=0.1"
    $R --all --teacher-epochs 40 $S --save $OUT/best.npz 2>&1 | tee $OUT/best.log

Back where vitpipe is installed, rebuild a saved model from its files, check that its weights equal the tested weights
bit for bit, and test it again. This test computes in float32, so the answers to a few of 10,000 images may differ from
those in bfloat16:

    KERAS_BACKEND=tensorflow PYTHONPATH=. python benchmarks/train_accelerator.py data/cifar10.npz --test preset.npz

The script trains the model of `trainer` with its augmentation, its optimizer and the settings of
`configs/<preset>.yaml`, but in a different loop: all images stay on the device as uint8, and a whole epoch is one
compiled program. Only JAX offers that (`jax.lax.scan`), so training requires JAX.

As in the pipeline, the averaged weights are evaluated on `val` after each epoch, and the best of them are tested.
`--all` also trains on `val`. No images are then left to choose the weights by, so the last weights are tested.
`--set GROUP.KEY=VALUE` overrides a setting of the preset. A learning rate fits one batch size, so set both together.

`docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from flops import training_flops
from pydantic import ValidationError

from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings

if TYPE_CHECKING:
    import jax
    import keras

    Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # images uint8 [N, height, width, 3] and labels int32 [N]
    Values = tuple[list[jax.Array], list[jax.Array]]  # of a model's trainable variables, and of its other variables
    State = tuple[list[jax.Array], list[jax.Array], list[jax.Array]]  # the same, and values of the optimizer

CONFIGS = Path(__file__).parents[1] / "configs"
SPLITS = ("train", "val", "test")
GROUPS = {"model": ModelSettings, "augment": AugmentSettings, "training": TrainingSettings}
PRESETS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
EVALUATION_BATCH = 1000


def main() -> None:
    """Train and test, or do what --pack or --test asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=npz, help="packed images, a .npz file")
    parser.add_argument("--pack", metavar="SPAN", help="write the images of this span folder to `data`; train nothing")
    parser.add_argument("--preset", default="cifar10", choices=PRESETS, metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings, with the seeds 0, 1, ...")
    parser.add_argument("--epochs", type=int, help="override training.epochs")
    parser.add_argument("--batch-size", type=int, help="override training.batch_size")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.KEY=VALUE",
        help="override a setting of the group model, augment or training",
    )
    parser.add_argument("--all", action="store_true", help="train on val, too, and test the last weights")
    parser.add_argument(
        "--teacher-epochs",
        type=int,
        default=0,
        metavar="N",
        help="first train a CNN for N epochs, as the teacher of the model",
    )
    parser.add_argument(
        "--teacher-weight", type=float, default=0.5, metavar="SHARE", help="share of CNN predictions in the targets"
    )
    parser.add_argument(
        "--peak-tflops", type=float, help="peak TFLOP/s of the device, in the precision of the training"
    )
    parser.add_argument("--out", type=Path, help="append one line of JSON for each training to this file")
    parser.add_argument(
        "--save", type=npz, metavar="FILE.npz", help="save the tested weights, in files of at most 15 MiB"
    )
    parser.add_argument("--test", type=npz, metavar="FILE.npz", help="test weights that --save wrote; train nothing")
    args = parser.parse_args()
    if args.save and args.seeds > 1:
        parser.error(f"--save stores the weights of one training, not of {args.seeds}: leave out --seeds")
    # The folders are checked first, so that a misspelt one does not lose the results of a training.
    for path in (args.out, args.save):
        if path and not path.parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}; create it first")
    if args.pack:
        pack(Path(args.pack), args.data)
        return
    if args.test:
        test(args.test, args.data)
        return
    if os.environ.get("KERAS_BACKEND") != "jax":
        sys.exit("train_accelerator.py needs KERAS_BACKEND=jax: an epoch is one jax.lax.scan")
    overrides = list(args.set)
    if args.epochs is not None:
        overrides.append(f"training.epochs={args.epochs}")
    if args.batch_size is not None:
        overrides.append(f"training.batch_size={args.batch_size}")
    model, augmentation, training = settings(args.preset, overrides)
    if training.accumulate > 1:
        sys.exit(f"training.accumulate {training.accumulate}: this loop computes a batch at once; set it to 1")
    splits = load(args.data)
    if args.all:
        splits["train"] = tuple(np.concatenate(both) for both in zip(splits["train"], splits["val"], strict=True))
        del splits["val"]

    teacher = None
    if args.teacher_epochs:
        _, _, short = settings(args.preset, [*overrides, f"training.epochs={args.teacher_epochs}"])
        teacher = TeacherRecipe(model, augmentation, short, splits)
    recipe = Recipe(model, augmentation, training, splits, teacher, args.teacher_weight)
    device = recipe.device()
    print(
        f"{device}, {recipe.policy}, {recipe.attention}: {recipe.parameters:,} parameters, "
        f"{len(splits['train'][1]):,} training images, {recipe.steps} steps an epoch",
        flush=True,
    )
    results = []
    for seed in range(args.seeds):
        result = {"seed": seed, "preset": args.preset, "set": overrides, "all": args.all, "device": device}
        if teacher:
            result["teacher"] = teacher.train(seed, args.peak_tflops)
        result |= {"attention": recipe.attention, **recipe.train(seed, args.peak_tflops)}
        results.append(result["test_accuracy"])
        print(
            f"seed {seed}: test {result['test_accuracy']:.4f} with the weights of epoch {result['epoch']}; "
            f"{result['seconds']:.1f} s, {result['seconds_with_compilation']:.1f} s with compilation",
            flush=True,
        )
        if args.save:
            from weights import save

            result["weights_sha256"] = save(recipe.averaged, args.save)
            print(f"weights in {args.save}, SHA-256 {result['weights_sha256']}", flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
    error = f" +- {np.std(results, ddof=1) / np.sqrt(len(results)):.4f} (standard error)" if len(results) > 1 else ""
    chosen = "the last weights, trained on train and val" if args.all else "the weights that were best on val"
    print(f"test accuracy {np.mean(results):.4f}{error} over {len(results)} seeds, {chosen}")


def npz(value: str) -> Path:
    """Parse a command-line argument that names a `.npz` file."""
    if not value.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"{value} does not end in .npz: use a name such as cifar10.npz")
    return Path(value)


def pack(span: Path, out: Path) -> None:
    """Write all encoded images of a span to one file that numpy alone can read.

    Args:
        span: Folder of the span.
        out: The file, `NAME.npz`.
    """
    import tensorflow as tf

    from components.data.ingest import manifest, tfrecord
    from trainer.examples import IMAGE, LABEL

    images, labels, splits = [], [], []
    span_manifest = manifest.read(span)
    for name in sorted(span_manifest.shards):
        for record in tfrecord.read(span / name):
            feature = tf.train.Example.FromString(record).features.feature
            images.append(feature[IMAGE].bytes_list.value[0])
            labels.append(feature[LABEL].int64_list.value[0])
            splits.append(SPLITS.index(name.partition("/")[0]))
    # Most bytes of a JPEG as small as CIFAR-10's are tables that all files share, so compression saves two thirds.
    np.savez_compressed(
        out,
        encoded=np.frombuffer(b"".join(images), np.uint8),
        ends=np.cumsum([len(image) for image in images]),
        labels=np.array(labels, np.int32),
        splits=np.array(splits, np.uint8),
        class_names=np.array(span_manifest.class_names),
    )
    print(f"{len(images):,} images in {out}: {out.stat().st_size / 2**20:.1f} MiB")


def load(path: Path) -> Splits:
    """Decode the images that `pack` wrote."""
    from PIL import Image

    try:
        with np.load(path, allow_pickle=False) as packed:
            encoded, ends, labels, splits = (packed[name] for name in ("encoded", "ends", "labels", "splits"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} holds no packed images ({error}): write them with --pack")

    def decode(start: int, end: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(encoded[start:end])).convert("RGB"))

    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(decode, np.append(0, ends[:-1]), ends)))
    return {name: (images[splits == index], labels[splits == index]) for index, name in enumerate(SPLITS)}


def test(saved: Path, data: Path) -> None:
    """Print the accuracy on the test split of weights that `--save` wrote.

    Args:
        saved: The first file of the weights.
        data: The packed images.
    """
    from weights import digest
    from weights import load as load_model

    try:
        model = load_model(saved)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        sys.exit(f"--test {saved}: {error}")
    images, labels = load(data)["test"]
    correct = model.predict(images, batch_size=EVALUATION_BATCH, verbose=0).argmax(-1) == labels
    print(f"test accuracy {correct.mean():.4f} on {len(labels):,} images, weights of SHA-256 {digest(model)}")


def settings(preset: str, overrides: list[str]) -> tuple[ModelSettings, AugmentSettings, TrainingSettings]:
    """Load the settings of a preset and override some of them.

    If a training is too short for the preset's warmup or for the horizon of its weight average, that setting is scaled
    to the same share of the epochs as in the preset.

    Args:
        preset: Name of the preset.
        overrides: Overrides such as "model.pool=mean".

    Returns:
        The groups of settings.
    """
    values = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())
    preset_training = TrainingSettings(**values.get("training", {}))
    for override in overrides:
        key, _, value = override.partition("=")
        group, _, name = key.partition(".")
        if group not in GROUPS:
            sys.exit(f"--set {override}: the group must be one of {', '.join(GROUPS)}")
        values.setdefault(group, {})[name] = yaml.safe_load(value)
    training = values.setdefault("training", {})
    epochs = training.get("epochs", preset_training.epochs)
    for name in ("warmup_epochs", "ema_epochs"):
        usual = getattr(preset_training, name)
        overridden = any(override.startswith(f"training.{name}=") for override in overrides)
        if not overridden and isinstance(epochs, int) and 0 < epochs <= usual:
            training[name] = usual * epochs / preset_training.epochs
            print(f"training.{name} {usual:g} does not fit {epochs} epochs: using {training[name]:g}")
    try:
        model, augment, training = (kind(**values.get(group, {})) for group, kind in GROUPS.items())
    except ValidationError as error:
        group = next(group for group, kind in GROUPS.items() if kind.__name__ == error.title)
        for fault in error.errors():
            name = ".".join([group, *map(str, fault["loc"])])
            print(f"{name}: {fault['msg']}" + (f", not {fault['input']!r}" if fault["loc"] else ""), file=sys.stderr)
        sys.exit(1)
    return model, augment, training


def attention_fault(
    attend: Callable[..., jax.Array], batch: int, tokens: int, queries: int, heads: int, size: int, dtype: str
) -> str:
    """Return why fused attention fails in a forward and a backward pass, or an empty string if it does not.

    Keras only checks shapes, before anything is compiled. Only a run shows whether the compiler accepts the backward
    pass, and whether the gradients equal those of plain attention.

    Args:
        attend: `keras.ops.nn.dot_product_attention`, or a function with the same signature.
        batch: Number of images.
        tokens: Number of tokens of an image.
        queries: Number of tokens, from the first, whose attention is computed.
        heads: Number of attention heads.
        size: Width of a head.
        dtype: Type of queries, keys and values.

    Returns:
        The reason in one line.
    """
    import jax

    *inputs, weight = (
        jax.random.normal(key, (batch, rows, heads, size), dtype)
        for key, rows in zip(jax.random.split(jax.random.key(0), 4), (queries, tokens, tokens, queries), strict=True)
    )

    def gradients(attend: Callable[..., jax.Array]) -> list[np.ndarray]:
        summed = jax.grad(lambda *inputs: (attend(*inputs) * weight).astype("float32").sum(), argnums=(0, 1, 2))
        return [np.asarray(gradient, "float32") for gradient in jax.jit(summed)(*inputs)]

    try:
        fused = gradients(attend)
    except Exception as error:  # the compiler, the driver and Keras raise different types
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for name, ours, plain in zip("qkv", fused, gradients(partial(attend, flash_attention=False)), strict=True):
        difference = np.linalg.norm(ours - plain) / np.linalg.norm(plain)
        if not difference < 0.05:  # rounding to bfloat16 causes less than 0.01; `not` also catches NaN
            return f"its gradient of {name} differs by {difference:.2g} of that of plain attention"
    return ""


def values(model: keras.Model) -> Values:
    """Return the values of the trainable variables, and those of the other variables."""
    trainable, fixed = model.trainable_variables, model.non_trainable_variables
    return [variable.value for variable in trainable], [variable.value for variable in fixed]


class Recipe:
    """The compiled programs of a recipe, which all seeds share, and the data on the device.

    Args:
        model: Settings of the model.
        augmentation: Settings of the augmentation.
        training: Settings of the training.
        splits: The images.
        teacher: Recipe of the teacher, which must be trained first. None: the model has no teacher.
        teacher_weight: Share of the teacher's predictions in the targets.
    """

    def __init__(
        self,
        model: ModelSettings,
        augmentation: AugmentSettings,
        training: TrainingSettings,
        splits: Splits,
        teacher: Recipe | None = None,
        teacher_weight: float = 0.0,
    ) -> None:
        import jax
        import jax.numpy as jnp

        self.model_settings, self.augmentation, self.training = model, augmentation, training
        self.teacher, self.teacher_weight = teacher, teacher_weight
        self.steps = len(splits["train"][1]) // training.batch_size
        if not self.steps:
            sys.exit(
                f"training.batch_size {training.batch_size} is more than {len(splits['train'][1])} images: lower it"
            )
        pixels = splits["train"][0].reshape(-1, 3)
        self.mean, self.std = pixels.mean(0), pixels.std(0)
        self.classes = int(splits["train"][1].max()) + 1
        precision = training.precision
        if precision == "auto":
            precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        self.policy = precision if precision == "float32" else f"mixed_{precision}"
        self.attention = self.choose_attention()
        self.data = {name: tuple(jnp.asarray(part) for part in split) for name, split in splits.items()}
        self.model, self.optimizer = self.build(training.seed)
        self.averaged = self.network()
        self.parameters = self.model.count_params()
        self.epoch = jax.jit(self.train_epoch, donate_argnums=0)
        self.correct = jax.jit(self.count_correct, static_argnames="mirrored")
        self.compiled: jax.stages.Compiled | None = None

    @property
    def teacher_values(self) -> tuple[Values] | tuple[()]:
        """Last argument of `train_epoch`: the values of the teacher; empty without a teacher."""
        return (values(self.teacher.averaged),) if self.teacher else ()

    def device(self) -> str:
        """Return the name of the device."""
        import jax

        return jax.devices()[0].device_kind

    def choose_attention(self) -> str:
        """Turn fused attention off if it fails for one of the model's shapes, and return the kind that is used."""
        import keras

        model = self.model_settings
        tokens = (model.image_size // model.patch_size) ** 2 + (model.pool == "cls")
        dtype = keras.DTypePolicy(self.policy).compute_dtype
        for queries in {tokens, 1 if model.pool == "cls" else tokens}:
            fault = attention_fault(
                keras.ops.nn.dot_product_attention,
                self.training.batch_size,
                tokens,
                queries,
                model.heads,
                model.width // model.heads,
                dtype,
            )
            if fault:
                print(f"fused attention fails with {queries} queries of {tokens} tokens: {fault}", flush=True)
                keras.config.disable_flash_attention()
                return "plain attention"
        return "attention as Keras chooses"

    def network(self) -> keras.Model:
        """Build a model with new weights."""
        import keras

        from trainer.vit import ViT

        return ViT(
            **self.model_settings.model_dump(exclude={"size"}),
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            dtype=keras.DTypePolicy(self.policy),
        )

    def build(self, seed: int) -> tuple[keras.Model, keras.optimizers.Optimizer]:
        """Build a new model and its optimizer."""
        import keras

        from trainer.optimizer import WarmupCosine, build_optimizer, ema_momentum

        training = self.training
        keras.utils.set_random_seed(seed)
        total = training.epochs * self.steps
        schedule = WarmupCosine(
            training.learning_rate,
            total_steps=total,
            warmup_steps=min(round(training.warmup_epochs * self.steps), total - 1),
            floor=training.final_learning_rate,
        )
        model = self.network()
        momentum = ema_momentum(training.ema_epochs, self.steps)
        return model, build_optimizer(training.optimizer, model, schedule, training.weight_decay, momentum)

    def train_epoch(
        self,
        state: State,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        mixing: jax.Array,
        teacher: Values | None = None,
    ) -> tuple[State, jax.Array]:
        """Train for one epoch.

        Args:
            state: Values of the model's and the optimizer's variables.
            images: uint8 [N, height, width, 3].
            labels: int32 [N].
            key: Random key of the epoch.
            mixing: float32, 1 if Mixup and CutMix are on, else 0.
            teacher: Values of the teacher's variables; None without a teacher.

        Returns:
            The next state and the mean loss.
        """
        import jax

        from trainer.augment import augment, draws_per_image
        from trainer.optimizer import clip_by_global_norm

        batch, smoothing = self.training.batch_size, self.training.label_smoothing
        shuffle, key = jax.random.split(key)
        order = jax.random.permutation(shuffle, len(labels))[: self.steps * batch].reshape(self.steps, batch)

        def compute_loss(
            trainable: list[jax.Array], fixed: list[jax.Array], pixels: jax.Array, targets: jax.Array
        ) -> tuple[jax.Array, list[jax.Array]]:
            logits, fixed = self.model.stateless_call(trainable, fixed, pixels, training=True)
            return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean(), fixed

        def step(state: State, rows_and_key: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            trainable, fixed, optimizer = state
            rows, key = rows_and_key
            draws = jax.random.uniform(key, (batch, draws_per_image(self.augmentation)))
            targets = jax.nn.one_hot(labels[rows], self.classes)
            size = self.model_settings.image_size
            pixels, targets = augment(images[rows], targets, draws, self.augmentation, size, mixing, branch=False)
            targets = targets * (1 - smoothing) + smoothing / self.classes
            if self.teacher:
                logits, _ = self.teacher.averaged.stateless_call(*teacher, pixels, training=False)
                # Teacher and student must see the same pixels (Beyer et al., 2022, https://arxiv.org/abs/2106.05237).
                targets += self.teacher_weight * (jax.nn.softmax(logits) - targets)
            loss_and_gradients = jax.value_and_grad(compute_loss, has_aux=True)
            (loss, fixed), gradients = loss_and_gradients(trainable, fixed, pixels, targets)
            gradients = clip_by_global_norm(gradients)
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
            return (trainable, fixed, optimizer), loss

        state, losses = jax.lax.scan(step, state, (order, jax.random.split(key, self.steps)))
        return state, losses.mean()

    def count_correct(
        self,
        trainable: list[jax.Array],
        fixed: list[jax.Array],
        images: jax.Array,
        labels: jax.Array,
        mirrored: bool,
    ) -> jax.Array:
        """Count the correct answers of the averaged weights.

        Args:
            trainable: Values of the trainable variables.
            fixed: Values of the other variables.
            images: uint8 [N, height, width, 3].
            labels: int32 [N].
            mirrored: Whether to add the logits of each mirror image.

        Returns:
            The number of correct answers.
        """
        logits, _ = self.averaged.stateless_call(trainable, fixed, images, training=False)
        if mirrored:
            logits += self.averaged.stateless_call(trainable, fixed, images[:, :, ::-1], training=False)[0]
        return (logits.argmax(-1) == labels).sum()

    def accuracy(self, split: str, mirrored: bool = False) -> float:
        """Compute the accuracy of the averaged weights.

        Args:
            split: Name of the split.
            mirrored: Whether to add the logits of each mirror image.

        Returns:
            The accuracy, from 0 to 1.
        """
        images, labels = self.data[split]
        correct = [
            self.correct(*values(self.averaged), images[batch], labels[batch], mirrored=mirrored)
            for batch in (slice(i, i + EVALUATION_BATCH) for i in range(0, len(labels), EVALUATION_BATCH))
        ]
        return int(sum(correct)) / len(labels)

    def take_average(self, state: State) -> None:
        """Set `averaged` to the moving average of the weights, or to the weights themselves if there is no average."""
        trainable, fixed, optimizer = state
        for variable, value in zip(self.averaged.non_trainable_variables, fixed, strict=True):
            variable.assign(value)
        for variable, value in zip(self.averaged.trainable_variables, trainable, strict=True):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
        self.optimizer.finalize_variable_values(self.averaged.trainable_variables)

    def train(self, seed: int, peak_tflops: float | None) -> dict[str, float | None]:
        """Train and test one model.

        Args:
            seed: Seed of the training.
            peak_tflops: Peak TFLOP/s of the device, if known.

        Returns:
            The results of the training, by name.

        Raises:
            FloatingPointError: If a loss is not finite.
        """
        import jax
        import jax.numpy as jnp

        model, optimizer = self.build(seed)
        state = tuple(
            [jnp.copy(variable.value) for variable in group]
            for group in (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        )
        images, labels = self.data["train"]
        key, mixing_until = jax.random.key(seed), self.augmentation.mixing_epochs * self.training.epochs
        started = time.perf_counter()
        if self.compiled is None:
            self.compiled = self.epoch.lower(state, images, labels, key, jnp.float32(0), *self.teacher_values).compile()
            # The evaluation is compiled here too, so that the first seed's time does not include its compilation.
            self.take_average(state)
            for split in self.data.keys() - {"train"}:
                self.accuracy(split)
        compile_seconds = time.perf_counter() - started

        best, best_epoch, best_weights, seconds = -1.0, 0, [], []
        begin = time.perf_counter()
        for epoch in range(self.training.epochs):
            started = time.perf_counter()
            mixing = jnp.float32(epoch < mixing_until)
            epoch_key = jax.random.fold_in(key, epoch)
            state, loss = self.compiled(state, images, labels, epoch_key, mixing, *self.teacher_values)
            loss = float(loss)  # waits for the device
            seconds.append(time.perf_counter() - started)
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} in epoch {epoch + 1}: lower training.learning_rate")
            speed = self.images_per_second(seconds[-1:])
            line = f"epoch {epoch + 1}/{self.training.epochs}  loss {loss:.3f}  {speed:,.0f} images/s"
            if "val" in self.data:
                self.take_average(state)
                accuracy = self.accuracy("val")
                line += f"  val {accuracy:.4f}"
                if accuracy > best:
                    best, best_epoch, best_weights = accuracy, epoch + 1, self.averaged.get_weights()
            print(line, flush=True)
        if "val" in self.data:
            self.averaged.set_weights(best_weights)
        else:
            self.take_average(state)
            best_epoch = self.training.epochs
        speed = self.images_per_second(seconds)
        tflops = speed * self.flops() / 1e12
        print(
            f"{np.median(seconds):.2f} s an epoch, {speed:,.0f} images/s, {tflops:.3g} TFLOP/s"
            + (f", {tflops / peak_tflops:.1%} of the peak" if peak_tflops else ""),
            flush=True,
        )
        test_accuracy = self.accuracy("test")
        training_seconds = time.perf_counter() - begin
        return {
            "test_accuracy": test_accuracy,
            "mirrored_test_accuracy": self.accuracy("test", mirrored=True),
            "val_accuracy": best if "val" in self.data else None,
            "epoch": best_epoch,
            "epochs": self.training.epochs,
            "seconds": training_seconds,
            "seconds_with_compilation": training_seconds + compile_seconds,
            "compile_seconds": compile_seconds,
            "seconds_an_epoch": float(np.median(seconds)),
            "images_per_second": speed,
            "tflops": tflops,
        }

    def images_per_second(self, seconds: Sequence[float]) -> float:
        """Return the median rate of epochs that took these seconds."""
        return self.steps * self.training.batch_size / float(np.median(seconds))

    def flops(self) -> int:
        """Return the FLOPs of training on one image."""
        model = self.model_settings
        return training_flops(
            model.image_size,
            model.patch_size,
            self.classes,
            model.depth,
            model.width,
            model.mlp_ratio,
            model.pool,
            model.conv_stem,
        )


class TeacherRecipe(Recipe):
    """Recipe of the CNN that is the teacher in a distillation."""

    width = 64  # channels of the first convolution

    def choose_attention(self) -> str:
        """Return the kind of attention for the log."""
        return "no attention"

    def network(self) -> keras.Model:
        """Build a CNN with new weights."""
        import keras

        from trainer.resnet9 import ResNet9

        size = self.model_settings.image_size
        policy = keras.DTypePolicy(self.policy)
        return ResNet9(size, self.classes, self.width, mean=self.mean, std=self.std, dtype=policy)

    def flops(self) -> int:
        """Return the FLOPs of training on one image: three passes of 378 million multiply-adds each at 32x32 pixels."""
        return 3 * 2 * 378_000_000 * self.width**2 // 64**2 * self.model_settings.image_size**2 // 32**2


if __name__ == "__main__":
    main()

"""Speed and accuracy of a preset's training recipe on one accelerator, without TFX and without TensorFlow.

    python benchmarks/train_accelerator.py --pack data/cifar10/span-1 cifar10.npz      # where vitpipe is installed
    KERAS_BACKEND=jax PYTHONPATH=. python benchmarks/train_accelerator.py cifar10.npz --seeds 3 --peak-tflops 989

The second needs jax (with CUDA for an NVIDIA GPU), keras, numpy, pillow, pydantic, pyyaml and scipy. It trains with the
model, the augmentation and the optimizer of `trainer`, in the numbers of `configs/<preset>.yaml`, in another loop: all
images lie on the device as uint8, and a whole epoch is one compiled program. Only JAX offers that (`jax.lax.scan`), so
it is JAX only.

As in the pipeline the averaged weights are looked at after each epoch, and those that were best on `val` are the ones
tested. `--all` trains on `val` as well, so there is nothing to choose by: it tests the last. Overrides for sweeps:
`--set model.head=mean --set augment.mixup=0`; a learning rate fits one batch size, so set both.

Not yet measured on a GPU.
"""

import argparse
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from flops import training_flops

from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings

CONFIGS = Path(__file__).parents[1] / "configs"
SPLITS = ("train", "val", "test")
GROUPS = {"model": ModelSettings, "augment": AugmentSettings, "training": TrainingSettings}
EVALUATION_BATCH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the packed images")
    parser.add_argument("--pack", metavar="SPAN", help="a prepared span folder: write it to `data`, and train nothing")
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--seeds", type=int, default=1, help="trainings, with the seeds 0, 1, ...")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument(
        "--set", action="append", default=[], metavar="GROUP.KEY=VALUE", help="model, augment, training"
    )
    parser.add_argument("--all", action="store_true", help="train on val, too, and test the last weights")
    parser.add_argument("--peak-tflops", type=float, help="of the device in the precision it computes in")
    parser.add_argument("--out", help="a file to which one line of JSON a training is added")
    args = parser.parse_args()
    if args.pack:
        pack(Path(args.pack), Path(args.data))
        return
    if os.environ.get("KERAS_BACKEND") != "jax":
        sys.exit("train_accelerator.py needs KERAS_BACKEND=jax: an epoch is one jax.lax.scan")
    overrides = list(args.set)
    if args.epochs:
        overrides.append(f"training.epochs={args.epochs}")
    if args.batch_size:
        overrides.append(f"training.batch_size={args.batch_size}")
    model, augmentation, training = settings(args.preset, overrides)
    if training.accumulate > 1:
        sys.exit(f"training.accumulate {training.accumulate}: this loop computes a batch at once; set it to 1")
    splits = load(Path(args.data))
    if args.all:
        splits["train"] = tuple(np.concatenate(both) for both in zip(splits["train"], splits["val"], strict=True))
        del splits["val"]

    recipe = Recipe(model, augmentation, training, splits)
    device = recipe.device()
    print(f"{device}, {recipe.policy}: {recipe.parameters:,} parameters, {len(splits['train'][1]):,} training images, "
          f"{recipe.steps} steps an epoch", flush=True)  # fmt: skip
    results = []
    for seed in range(args.seeds):
        result = {"seed": seed, "preset": args.preset, "set": overrides, "all": args.all, "device": device}
        result |= recipe.train(seed, args.peak_tflops)
        results.append(result["test_accuracy"])
        print(f"seed {seed}: test {result['test_accuracy']:.4f} with the weights of epoch {result['epoch']}; "
              f"{result['seconds']:.1f} s and {result['compile_seconds']:.1f} s to compile", flush=True)  # fmt: skip
        if args.out:
            with Path(args.out).open("a") as file:
                file.write(json.dumps(result) + "\n")
    error = f" +- {np.std(results, ddof=1) / np.sqrt(len(results)):.4f} (standard error)" if len(results) > 1 else ""
    chosen = "the last weights, trained on train and val" if args.all else "the weights that were best on val"
    print(f"test accuracy {np.mean(results):.4f}{error} over {len(results)} seeds, {chosen}")


def pack(span: Path, out: Path) -> None:
    """All images of a span, encoded as they are, in one file that numpy alone can read."""
    import tensorflow as tf

    from components.ingest import manifest, tfrecord
    from trainer.examples import IMAGE, LABEL

    images, labels, splits = [], [], []
    written = manifest.read(span)
    for name in sorted(written.shards):
        for record in tfrecord.read(span / name):
            feature = tf.train.Example.FromString(record).features.feature
            images.append(feature[IMAGE].bytes_list.value[0])
            labels.append(feature[LABEL].int64_list.value[0])
            splits.append(SPLITS.index(name.partition("/")[0]))
    np.savez(
        out,
        encoded=np.frombuffer(b"".join(images), np.uint8),
        ends=np.cumsum([len(image) for image in images]),
        labels=np.array(labels, np.int32),
        splits=np.array(splits, np.uint8),
        class_names=np.array(written.class_names),
    )
    print(f"{len(images):,} images in {out}: {out.stat().st_size / 2**20:.1f} MiB")


def load(path: Path) -> dict:
    """Images uint8 [N, height, width, 3] and labels int32 [N] by split."""
    from PIL import Image

    with np.load(path, allow_pickle=False) as packed:
        encoded, ends, labels, splits = (packed[name] for name in ("encoded", "ends", "labels", "splits"))
    images = np.stack([
        np.asarray(Image.open(io.BytesIO(encoded[start:end])).convert("RGB"))
        for start, end in zip(np.append(0, ends[:-1]), ends, strict=True)
    ])  # fmt: skip
    return {name: (images[splits == index], labels[splits == index]) for index, name in enumerate(SPLITS)}


def settings(preset: str, overrides: list[str]) -> list:
    """The preset's groups of settings, with overrides such as "model.head=mean"."""
    given = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())
    for override in overrides:
        key, _, value = override.partition("=")
        group, _, name = key.partition(".")
        if group not in GROUPS:
            sys.exit(f"--set {override}: the group must be one of {', '.join(GROUPS)}")
        given.setdefault(group, {})[name] = yaml.safe_load(value)
    return [kind(**given.get(group, {})) for group, kind in GROUPS.items()]


class Recipe:
    """The compiled programs of a recipe, shared by all seeds, and the data on the device."""

    def __init__(self, model, augmentation, training, splits):
        import jax
        import jax.numpy as jnp

        self.model_settings, self.augmentation, self.training = model, augmentation, training
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
        self.data = {name: tuple(jnp.asarray(part) for part in split) for name, split in splits.items()}
        self.model, self.optimizer = self.build(training.seed)
        self.averaged = self.vit()
        self.parameters = self.model.count_params()
        self.epoch = jax.jit(self.train_epoch, donate_argnums=0)
        self.right = jax.jit(self.count_right)
        self.compiled = None

    def device(self) -> str:
        import jax

        return jax.devices()[0].device_kind

    def vit(self):
        import keras

        from trainer.vit import ViT

        return ViT(
            **self.model_settings.model_dump(exclude={"size"}),
            classes=self.classes, mean=self.mean, std=self.std, dtype=keras.DTypePolicy(self.policy),
        )  # fmt: skip

    def build(self, seed):
        """A new model and its optimizer."""
        import keras

        from trainer.optimizer import WarmupCosine, adamw, ema_momentum

        training = self.training
        keras.utils.set_random_seed(seed)
        total = training.epochs * self.steps
        schedule = WarmupCosine(
            training.learning_rate,
            total_steps=total,
            warmup_steps=min(round(training.warmup_epochs * self.steps), total - 1),
            floor=training.final_learning_rate,
        )
        model = self.vit()
        return model, adamw(model, schedule, training.weight_decay, ema_momentum(training.ema_epochs, self.steps))

    def train_epoch(self, state, images, labels, key, mixing):
        """state: the values of the model's and the optimizer's variables. Returns the next state and the mean loss."""
        import jax

        from trainer.augment import augment, draws_per_image
        from trainer.optimizer import clip_by_global_norm

        batch, smoothing = self.training.batch_size, self.training.label_smoothing
        shuffle, key = jax.random.split(key)
        order = jax.random.permutation(shuffle, len(labels))[: self.steps * batch].reshape(self.steps, batch)

        def loss_of(trainable, fixed, pixels, targets):
            logits, fixed = self.model.stateless_call(trainable, fixed, pixels, training=True)
            smoothed = targets * (1 - smoothing) + smoothing / self.classes
            return -(smoothed * jax.nn.log_softmax(logits)).sum(-1).mean(), fixed

        def step(state, chosen):
            trainable, fixed, optimizer = state
            rows, key = chosen
            draws = jax.random.uniform(key, (batch, draws_per_image(self.augmentation)))
            targets = jax.nn.one_hot(labels[rows], self.classes)
            pixels, targets = augment(images[rows], targets, draws, self.augmentation, mixing)
            (loss, fixed), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, fixed, pixels, targets)
            gradients = clip_by_global_norm(gradients)
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
            return (trainable, fixed, optimizer), loss

        state, losses = jax.lax.scan(step, state, (order, jax.random.split(key, self.steps)))
        return state, losses.mean()

    def count_right(self, trainable, fixed, images, labels):
        logits, _ = self.averaged.stateless_call(trainable, fixed, images, training=False)
        return (logits.argmax(-1) == labels).sum()

    def accuracy(self, split: str) -> float:
        """Of the averaged weights."""
        model = self.averaged
        values = [[one.value for one in group] for group in (model.trainable_variables, model.non_trainable_variables)]
        images, labels = self.data[split]
        right = [
            self.right(*values, images[start : start + EVALUATION_BATCH], labels[start : start + EVALUATION_BATCH])
            for start in range(0, len(labels), EVALUATION_BATCH)
        ]
        return int(sum(right)) / len(labels)

    def take_average(self, state) -> None:
        """Into `averaged`: the moving average of the weights, or the weights where there is none."""
        trainable, _, optimizer = state
        for variable, value in zip(self.averaged.trainable_variables, trainable, strict=True):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, optimizer, strict=True):
            variable.assign(value)
        self.optimizer.finalize_variable_values(self.averaged.trainable_variables)

    def train(self, seed: int, peak_tflops: float | None) -> dict:
        import jax
        import jax.numpy as jnp

        model, optimizer = self.build(seed)
        state = tuple(
            [jnp.copy(one.value) for one in group]
            for group in (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        )
        images, labels = self.data["train"]
        key, mixing_until = jax.random.key(seed), self.augmentation.mixing_epochs * self.training.epochs
        started = time.perf_counter()
        if self.compiled is None:
            self.compiled = self.epoch.lower(state, images, labels, key, jnp.float32(0)).compile()
        compile_seconds = time.perf_counter() - started

        best, best_epoch, best_weights, seconds = -1.0, 0, [], []
        begin = time.perf_counter()
        for epoch in range(self.training.epochs):
            started = time.perf_counter()
            mixing = jnp.float32(epoch < mixing_until)
            state, loss = self.compiled(state, images, labels, jax.random.fold_in(key, epoch), mixing)
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
        print(f"{np.median(seconds):.2f} s an epoch, {speed:,.0f} images/s, {tflops:.3g} TFLOP/s"
              + (f", {tflops / peak_tflops:.1%} of the peak" if peak_tflops else ""), flush=True)  # fmt: skip
        return {
            "test_accuracy": self.accuracy("test"),
            "val_accuracy": best if "val" in self.data else None,
            "epoch": best_epoch,
            "epochs": self.training.epochs,
            "seconds": time.perf_counter() - begin,
            "compile_seconds": compile_seconds,
            "seconds_an_epoch": float(np.median(seconds)),
            "images_per_second": speed,
            "tflops": tflops,
        }

    def images_per_second(self, seconds) -> float:
        return self.steps * self.training.batch_size / float(np.median(seconds))

    def flops(self) -> int:
        model = self.model_settings
        return training_flops(
            model.image_size, model.patch_size, self.classes, model.depth, model.width, model.mlp_ratio, model.head,
            model.conv_stem,
        )  # fmt: skip


if __name__ == "__main__":
    main()

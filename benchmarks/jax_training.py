"""Training loop that keeps all images on one accelerator and compiles a whole epoch, for `train_accelerator.py`.

It trains the model of `trainer` with its augmentation and its optimizer. Only JAX offers such a loop (`jax.lax.scan`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from flops import training_flops

from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings, teacher_settings

if TYPE_CHECKING:
    import jax
    import keras
    from packed import Splits

    Values = tuple[list[jax.Array], list[jax.Array]]  # of a model's trainable variables, and of its other variables
    State = tuple[list[jax.Array], list[jax.Array], list[jax.Array]]  # the same, and values of the optimizer

EVALUATION_BATCH = 1000


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
        splits: The images. With `training.use_val`, those of val are also trained on.
        teacher_width: Channels of the first convolution of the teacher.
    """

    def __init__(
        self,
        model: ModelSettings,
        augmentation: AugmentSettings,
        training: TrainingSettings,
        splits: Splits,
        teacher_width: int = 64,
    ) -> None:
        import jax
        import jax.numpy as jnp

        self.teacher_width = teacher_width

        self.model_settings, self.augmentation, self.training = model, augmentation, training
        self.teacher = (
            TeacherRecipe(model, *teacher_settings(augmentation, training), splits, teacher_width)
            if training.teacher_epochs
            else None
        )
        if training.use_val:
            train, val = splits["train"], splits["val"]
            splits = {
                "train": (np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]])),
                "test": splits["test"],
            }
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

    def machine(self) -> str:
        """Describe the device and what computes on it."""
        import jax
        import keras

        return f"one {self.device()}, JAX {jax.__version__}, Keras {keras.__version__}, {self.policy}"

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
                targets += self.training.teacher_weight * (jax.nn.softmax(logits) - targets)
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
        """Return the FLOPs of training on one image, with the teacher's forward pass."""
        model = self.model_settings
        forward_pass_of_teacher = self.teacher.flops() // 3 if self.teacher else 0
        return forward_pass_of_teacher + training_flops(
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

    def choose_attention(self) -> str:
        """Return the kind of attention for the log."""
        return "no attention"

    def network(self) -> keras.Model:
        """Build a CNN with new weights."""
        import keras

        from trainer.resnet9 import ResNet9

        size = self.model_settings.image_size
        policy = keras.DTypePolicy(self.policy)
        return ResNet9(size, self.classes, self.teacher_width, mean=self.mean, std=self.std, dtype=policy)

    def flops(self) -> int:
        """Return the FLOPs of training on one image: three passes of 378 million multiply-adds each at 32x32 pixels."""
        return 3 * 2 * 378_000_000 * self.teacher_width**2 // 64**2 * self.model_settings.image_size**2 // 32**2

"""Steps of training and evaluation, on one device or several."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import devices
from trainer.augment import augment, draws_per_image
from trainer.input import PADDING_LABEL, Share, Split, dataset, evaluation_batches, training_batches
from trainer.optimizer import build_optimizer, clip_by_global_norm, ema_momentum
from trainer.settings import AugmentSettings, TrainingSettings
from trainer.sizes import check_batch

_STEPS_PER_REPORT = 50  # steps between two reports of the loss, each of which waits for the device

TrainingBatch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # images, labels and draws, as `training_batches` yields them


@dataclass(frozen=True)
class Progress:
    """Result of some consecutive training steps."""

    steps: int  # number of steps
    loss: float  # mean over their images
    accuracy: float  # mean over their images, with respect to the labels before Mixup and CutMix
    bad_step: int  # first step with a loss that is not finite, counted from 0 over the whole training; -1 if none
    compiled: bool  # whether the time of these steps includes compilation, which is most of it


class Learner:
    """A classifier, its optimizer and the compiled step that trains it, distributed over the devices of a strategy.

    A batch is split evenly over the replicas. Their gradients are summed before they are clipped and applied, and all
    random choices come from the random numbers of the batch. So the number of devices does not change the result,
    except for rounding. On one device the whole step is one XLA program, except in bfloat16 on a CPU with instructions
    for it. On several devices XLA compiles the computation of the gradients, which each replica does by itself.

    Attributes:
        model: The classifier that is trained.
        averaged: The classifier to evaluate: it has the moving average of the weights. It is `model` itself if the
            settings ask for no average.
        optimizer: The optimizer.

    Args:
        build: Function that builds the classifier. The classifier maps pixels from 0 to 255 [N, size, size, 3], uint8
            or float32, to float32 logits [N, classes]. Layers that are not trainable are not changed. If it has an
            attribute `draws_per_image` above 0, training passes it `draws`: uniform random numbers, float32
            [N, draws_per_image].
        classes: Number of classes.
        schedule: Learning rate at each step.
        training: Settings of the training.
        augmentation: Settings of the augmentation.
        image_size: Side of the images that the classifier takes, in pixels. Training images have the same size; with
            resized crops they may have any size.
        steps_per_epoch: Number of steps of an epoch.
        strategy: Strategy that distributes a step over devices.
        teacher: Function that builds a trained classifier with the same input and output. The targets are the mean of
            the labels and its probabilities for the augmented images, with the weight `training.teacher_weight`. None:
            the targets are the labels.

    Raises:
        ValueError: If the batch size is not a multiple of twice the number of parts: replicas times
            `training.accumulate`.
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        classes: int,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        training: TrainingSettings,
        augmentation: AugmentSettings,
        image_size: int,
        steps_per_epoch: int,
        strategy: tf.distribute.Strategy,
        teacher: Callable[[], keras.Model] | None = None,
    ) -> None:
        replicas = strategy.num_replicas_in_sync
        check_batch(training.batch_size, training.accumulate * replicas)
        self.strategy, self.training, self.augmentation = strategy, training, augmentation
        self.classes, self.image_size = classes, image_size
        self.steps_per_epoch, self.replicas = steps_per_epoch, replicas
        self.rows = training.batch_size // replicas
        with strategy.scope():
            self.model = build()
            momentum = ema_momentum(training.ema_epochs, steps_per_epoch)
            self.optimizer = build_optimizer(training.optimizer, self.model, schedule, training.weight_decay, momentum)
            self.averaged = build() if momentum else self.model
            self.teacher = teacher() if teacher else None
            # Small gradients would round to zero in float16, so the loss is scaled up. An overflow halves the scale.
            self._scales_loss = self.model.compute_dtype == "float16"
            self.loss_scale = keras.Variable(2.0**15, trainable=False, name="loss_scale")
            self.finite_steps = keras.Variable(0, dtype="int32", trainable=False, name="finite_steps")
        self._model_draws = getattr(self.model, "draws_per_image", 0)
        self._weights = [weight.value for weight in self.model.trainable_weights]
        self._is_compiled = False
        # On a CPU with instructions for bfloat16, TensorFlow's products are twice as fast in bfloat16 as in float32,
        # but XLA's are not. On other CPUs, TensorFlow takes many times as long, because it emulates such products, and
        # XLA multiplies in float32. All other operations are faster with XLA, which passes over memory less often.
        on_cpu = not tf.config.list_physical_devices("GPU")
        native = on_cpu and devices.cpu_multiplies_bfloat16()
        self._xla_multiplies = not (native and self.model.compute_dtype == "bfloat16")
        if replicas == 1:
            self._step = self._compile(self._step_on_one_device)
            self._evaluation_step = self._compile(self._evaluate_batch)
        else:
            self._compiled_gradients = self._compile(self._gradients)
            self._step = self._step_on_replica
            # Not compiled: XLA would look for the second replica's weights on the first device.
            self._evaluation_step = self._evaluate_batch

    # Batches

    def batches(self, split: Split, first_epoch: int) -> Iterator[TrainingBatch]:
        """Return an endless iterator of training batches, for `train`.

        Args:
            split: Images to train on.
            first_epoch: Epoch to start from, which decides the order of the images.

        Returns:
            The iterator. It can be passed to several calls of `train`, one after the other.
        """
        draws = draws_per_image(self.augmentation) + self._model_draws

        def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
            def worker_batches() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
                return training_batches(
                    split, self.training.batch_size, draws, self.training.seed, first_epoch, self._share(context)
                )

            return dataset(worker_batches, split, self.rows, draws)

        return iter(self.strategy.distribute_datasets_from_function(pipeline))

    def _share(self, context: tf.distribute.InputContext) -> Share:
        local = self.replicas // context.num_input_pipelines
        return Share(context.input_pipeline_id * local, local, self.replicas)

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as one XLA program, or as one whose operations `_xla_scope` leaves to XLA or not."""
        return tf.function(function, jit_compile=True if self._xla_multiplies else None)

    def _xla_scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the scope in which XLA computes all operations but products, if it is not to multiply.

        The body of a loop or branch is a graph of its own, which has to enter the scope itself.
        """
        if self._xla_multiplies:
            return contextlib.nullcontext()
        return tf.xla.experimental.jit_scope(compile_ops=lambda operation: operation.op not in _PRODUCTS)

    # Training

    def train(self, batches: Iterator[TrainingBatch], steps: int, mixing: bool) -> Iterator[Progress]:
        """Take training steps, and yield the progress after every few of them.

        All training goes through this loop. Training stops early if the caller stops iterating.

        Args:
            batches: Batches, from `self.batches`.
            steps: Number of steps.
            mixing: Whether Mixup and CutMix are on.

        Yields:
            The progress since the last report.
        """
        taken = 0
        while taken < steps:
            compiles = not self._is_compiled
            count = 1 if compiles else min(_STEPS_PER_REPORT, steps - taken)
            loss, correct, bad_step = self._train_steps(batches, tf.constant(count), tf.constant(float(mixing)))
            self._is_compiled = True
            taken += count
            accuracy = float(correct) / (count * self.training.batch_size)
            yield Progress(count, float(loss) / count, accuracy, int(bad_step), compiles)

    @tf.function
    def _train_steps(
        self, batches: Iterator[TrainingBatch], steps: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        loss, correct, bad_step = 0.0, 0.0, tf.constant(-1)
        for _ in tf.range(steps):
            step = tf.cast(self.optimizer.iterations, tf.int32)
            images, labels, draws = next(batches)
            replica_loss, replica_correct = self.strategy.run(self._step, (images, labels, draws, mixing))
            step_loss = self.strategy.reduce("SUM", replica_loss, axis=None)
            loss += step_loss
            correct += self.strategy.reduce("SUM", replica_correct, axis=None)
            bad_step = tf.where((bad_step < 0) & ~tf.math.is_finite(step_loss), step, bad_step)
        return loss, correct, bad_step

    def _step_on_one_device(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss, correct, gradients = self._gradients(images, labels, draws, mixing)
        self._apply(gradients)
        return loss, correct

    def _step_on_replica(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss, correct, gradients = self._compiled_gradients(images, labels, draws, mixing)
        self._apply(tf.distribute.get_replica_context().all_reduce("SUM", gradients))
        return loss, correct

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Compute the loss, the number of correct predictions and the gradients of one replica's rows.

        The losses of all replicas add up to the mean loss of the batch, and so do their gradients.
        """
        parts = self.training.accumulate
        if parts == 1:
            return self._part_gradients(images, labels, draws, mixing)
        images, labels, draws = (tf.reshape(x, (parts, -1, *x.shape[1:])) for x in (images, labels, draws))
        loss, correct, gradients = 0.0, 0.0, [tf.zeros_like(weight) for weight in self._weights]
        for part in tf.range(parts):
            part_loss, part_correct, more = self._part_gradients(images[part], labels[part], draws[part], mixing)
            loss, correct = loss + part_loss, correct + part_correct
            gradients = [old + new for old, new in zip(gradients, more, strict=True)]
        return loss, correct, gradients

    def _part_gradients(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with self._xla_scope():
            return self._forward_and_backward(images, labels, draws, mixing)

    def _forward_and_backward(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        smoothing = self.training.label_smoothing
        targets = tf.one_hot(labels, self.classes)
        # Outside an XLA program, operations of a branch would run one by one.
        branch = self._xla_multiplies
        images, targets = augment(images, targets, draws, self.augmentation, self.image_size, mixing, branch)
        model_arguments = {"draws": draws[:, draws_per_image(self.augmentation) :]} if self._model_draws else {}
        smoothed = targets * (1.0 - smoothing) + smoothing / self.classes
        if self.teacher:
            # Both see the same pixels, because distillation works better so (Beyer et al., 2022,
            # https://arxiv.org/abs/2106.05237).
            answers = tf.nn.softmax(self.teacher(images, training=False))
            smoothed += self.training.teacher_weight * (answers - smoothed)
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True, **model_arguments)
            losses = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
            loss = tf.reduce_sum(losses) / self.training.batch_size
            scaled = loss * self.loss_scale if self._scales_loss else loss
        return loss, _count_correct(logits, labels), tape.gradient(scaled, self._weights)

    def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
        with self._xla_scope():
            if self._scales_loss:
                gradients = self._unscale(gradients)
            self.optimizer.apply(clip_by_global_norm(gradients))

    def _unscale(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Divide the gradients by the loss scale; if one of them overflowed, return zeros and halve the scale.

        A step with an overflow still decays weights and advances the schedule. It is rare: one in thousands.
        """
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        gradients = [tf.where(finite, gradient / self.loss_scale, 0.0) for gradient in gradients]
        is_time_to_grow = self.finite_steps >= 2000
        factor = tf.where(finite, tf.where(is_time_to_grow, 2.0, 1.0), 0.5)
        self.loss_scale.assign(self.loss_scale * factor)
        self.finite_steps.assign(tf.where(finite & ~is_time_to_grow, self.finite_steps + 1, 0))
        return gradients

    # Evaluation

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Return the mean cross-entropy and the accuracy of the averaged weights on a whole split."""
        self.average()

        def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
            share = self._share(context)
            return dataset(lambda: evaluation_batches(split, self.training.batch_size, share), split, self.rows)

        batches = self.strategy.distribute_datasets_from_function(pipeline)
        loss, correct = (float(total) for total in self._evaluate_all(batches))
        return loss / len(split), correct / len(split)

    def average(self) -> None:
        """Update `averaged` to the last step: average its trainable weights, and copy all others from `model`."""
        self.optimizer.finalize_variable_values(self.averaged.trainable_variables)
        if self.averaged is not self.model:
            pairs = zip(self.averaged.non_trainable_weights, self.model.non_trainable_weights, strict=True)
            for target, source in pairs:
                target.assign(source)

    @tf.function
    def _evaluate_all(self, batches: tf.distribute.DistributedDataset) -> tuple[tf.Tensor, tf.Tensor]:
        loss, correct = 0.0, 0.0
        for images, labels in batches:
            replica_loss, replica_correct = self.strategy.run(self._evaluation_step, (images, labels))
            loss += self.strategy.reduce("SUM", replica_loss, axis=None)
            correct += self.strategy.reduce("SUM", replica_correct, axis=None)
        return loss, correct

    def _evaluate_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the sum of the losses and the number of correct predictions, without the rows that fill the batch."""
        with self._xla_scope():
            logits = self.averaged(images, training=False)
            is_example = labels != PADDING_LABEL
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
            return tf.reduce_sum(tf.where(is_example, losses, 0.0)), _count_correct(logits, labels)

    # State

    def variables(self) -> dict[str, keras.Variable]:
        """Return all variables that a step changes, by name."""
        # Names contain a number, because Keras names the random states of dropout differently in each process.
        return {
            **{f"model/{number:04d}-{variable.name}": variable for number, variable in enumerate(self.model.variables)},
            **{
                f"optimizer/{number:04d}-{variable.name}": variable
                for number, variable in enumerate(self.optimizer.variables)
            },
            "loss_scale": self.loss_scale,
            "finite_steps": self.finite_steps,
        }

    def state(self) -> dict[str, np.ndarray]:
        """Return the values of `variables`, for a checkpoint."""
        return {name: np.array(variable) for name, variable in self.variables().items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set `variables` to the values that `state` returned."""
        for name, variable in self.variables().items():
            variable.assign(state[name])


# Operations that TensorFlow computes in place of XLA: products, and the addition of a bias, which TensorFlow fuses with
# the product before it. Function calls are in the list, because XLA cannot compile a call on its own.
_PRODUCTS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D", "BiasAdd"}
_PRODUCTS |= {"Conv2DBackpropFilter", "Conv2DBackpropInput", "PartitionedCall", "StatefulPartitionedCall"}


def _count_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels), tf.float32))

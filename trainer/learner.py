"""The training step, on one device or many."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from trainer.augment import augment, draws_per_image
from trainer.input import Share, Split, dataset, evaluation_batches, training_batches
from trainer.optimizer import build_optimizer, clip_by_global_norm, ema_momentum
from trainer.settings import AugmentSettings, TrainingSettings
from trainer.sizes import check_batch

_STEPS_PER_LOOK = 50  # steps between two looks at the loss: each look waits for the device

TrainingBatch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # images, labels and draws, as of `training_batches`


@dataclass(frozen=True)
class Progress:
    """Loss and accuracy (of the unmixed labels) per image in some steps, and the first step that went wrong.

    `bad_step` counts from 0 over the whole training and is -1 when every loss was finite. `compiled` is true of the
    first step of all, whose time is mostly that of compiling it.
    """

    steps: int
    loss: float
    accuracy: float
    bad_step: int
    compiled: bool


class Learner:
    """A classifier, its optimizer and the compiled step that trains it, spread over the devices of `strategy`.

    `build` makes it: pixels from 0 to 255, [N, size, size, 3], to float32 logits [N, classes]. Layers that it makes
    not trainable stay as they are. `averaged` is the model to evaluate: a moving average of the weights, or the model
    itself where there is no average.

    A batch is split evenly over the replicas. Their gradients are summed before they are clipped and applied, so that
    a batch means the same on any number of devices (but for dropout and stochastic depth, whose chance is each
    replica's own state). The whole step is one XLA program on a single device; over several,
    XLA compiles what each replica computes alone.

    Raises ValueError when the replicas cannot share a batch evenly.
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        classes: int,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        training: TrainingSettings,
        augmentation: AugmentSettings,
        steps_per_epoch: int,
        strategy: tf.distribute.Strategy,
    ):
        replicas = strategy.num_replicas_in_sync
        check_batch(training.batch_size, training.accumulate * replicas)
        self.strategy, self.training, self.augmentation = strategy, training, augmentation
        self.classes = classes
        self.steps_per_epoch, self.replicas = steps_per_epoch, replicas
        self.rows = training.batch_size // replicas
        with strategy.scope():
            self.model = build()
            momentum = ema_momentum(training.ema_epochs, steps_per_epoch)
            self.optimizer = build_optimizer(training.optimizer, self.model, schedule, training.weight_decay, momentum)
            self.averaged = build() if momentum else self.model
            # Gradients of float16 would round to zero: scale the loss up, and halve that when they overflow.
            self._scales_loss = self.model.compute_dtype == "float16"
            self.loss_scale = keras.Variable(2.0**15, trainable=False, name="loss_scale")
            self.finite_steps = keras.Variable(0, dtype="int32", trainable=False, name="finite_steps")
        self._weights = [weight.value for weight in self.model.trainable_weights]
        self._is_compiled = False
        if replicas == 1:
            self._step = tf.function(self._train_alone, jit_compile=True)
            self._count_step = tf.function(self._count, jit_compile=True)
        else:
            self._gradients_compiled = tf.function(self._gradients, jit_compile=True)
            self._step = self._train_together
            self._count_step = self._count  # XLA would look for the second replica's weights on the first device

    # Batches

    def batches(self, split: Split, first_epoch: int) -> Iterator[TrainingBatch]:
        """Training batches without end, for `train`."""
        draws = draws_per_image(self.augmentation)

        def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
            def of_this_worker() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
                return training_batches(
                    split, self.training.batch_size, draws, self.training.seed, first_epoch, self._share(context)
                )

            return dataset(of_this_worker, split, self.rows, draws)

        return iter(self.strategy.distribute_datasets_from_function(pipeline))

    def _share(self, context: tf.distribute.InputContext) -> Share:
        local = self.replicas // context.num_input_pipelines
        return Share(context.input_pipeline_id * local, local, self.replicas)

    # Training

    def train(self, batches: Iterator[TrainingBatch], steps: int, mixing: bool) -> Iterator[Progress]:
        """Take `steps` steps, and yield the progress from time to time. This is the only training loop.

        Args:
            batches: as `self.batches` returns them.
            steps: how many to take; fewer if the caller ends the iteration.
            mixing: whether Mixup and CutMix are on.
        """
        taken = 0
        while taken < steps:
            compiles = not self._is_compiled
            count = 1 if compiles else min(_STEPS_PER_LOOK, steps - taken)
            loss, right, bad_step = self._train_steps(batches, tf.constant(count), tf.constant(float(mixing)))
            self._is_compiled = True
            taken += count
            accuracy = float(right) / (count * self.training.batch_size)
            yield Progress(count, float(loss) / count, accuracy, int(bad_step), compiles)

    @tf.function
    def _train_steps(
        self, batches: Iterator[TrainingBatch], steps: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        loss, right, bad_step = 0.0, 0.0, tf.constant(-1)
        for _ in tf.range(steps):
            step = tf.cast(self.optimizer.iterations, tf.int32)
            images, labels, draws = next(batches)
            losses, rights = self.strategy.run(self._step, (images, labels, draws, mixing))
            step_loss = self.strategy.reduce("SUM", losses, axis=None)
            loss += step_loss
            right += self.strategy.reduce("SUM", rights, axis=None)
            bad_step = tf.where((bad_step < 0) & ~tf.math.is_finite(step_loss), step, bad_step)
        return loss, right, bad_step

    def _train_alone(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss, right, gradients = self._gradients(images, labels, draws, mixing)
        self._apply(gradients)
        return loss, right

    def _train_together(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss, right, gradients = self._gradients_compiled(images, labels, draws, mixing)
        self._apply(tf.distribute.get_replica_context().all_reduce("SUM", gradients))
        return loss, right

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Loss, number right and gradients of one replica's rows; the losses of all replicas add up to the mean."""
        parts = self.training.accumulate
        if parts == 1:
            return self._part(images, labels, draws, mixing)
        images, labels, draws = (tf.reshape(x, (parts, -1, *x.shape[1:])) for x in (images, labels, draws))
        loss, right, gradients = 0.0, 0.0, [tf.zeros_like(weight) for weight in self._weights]
        for part in tf.range(parts):
            more_loss, more_right, more = self._part(images[part], labels[part], draws[part], mixing)
            loss, right = loss + more_loss, right + more_right
            gradients = [old + new for old, new in zip(gradients, more, strict=True)]
        return loss, right, gradients

    def _part(
        self, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, mixing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        smoothing = self.training.label_smoothing
        images, targets = augment(images, tf.one_hot(labels, self.classes), draws, self.augmentation, mixing)
        smoothed = targets * (1.0 - smoothing) + smoothing / self.classes
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            losses = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
            loss = tf.reduce_sum(losses) / self.training.batch_size
            scaled = loss * self.loss_scale if self._scales_loss else loss
        return loss, _right(logits, labels), tape.gradient(scaled, self._weights)

    def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
        if self._scales_loss:
            gradients = self._unscale(gradients)
        self.optimizer.apply(clip_by_global_norm(gradients))

    def _unscale(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients without the scale of the loss; all zero when one overflowed.

        Such a step still decays weights and moves on in the schedule: it is one in thousands.
        """
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        gradients = [tf.where(finite, gradient / self.loss_scale, 0.0) for gradient in gradients]
        grown = self.finite_steps >= 2000
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        self.loss_scale.assign(self.loss_scale * factor)
        self.finite_steps.assign(tf.where(finite & ~grown, self.finite_steps + 1, 0))
        return gradients

    # Evaluation

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean cross-entropy and accuracy of the averaged weights on all of `split`."""
        self.average()

        def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
            share = self._share(context)
            return dataset(lambda: evaluation_batches(split, self.training.batch_size, share), split, self.rows)

        batches = self.strategy.distribute_datasets_from_function(pipeline)
        loss, right = (float(total) for total in self._evaluate_all(batches))
        return loss / len(split), right / len(split)

    def average(self) -> None:
        """Bring `averaged` up to the last step: the average of what is trained, the rest as it is."""
        self.optimizer.finalize_variable_values(self.averaged.trainable_variables)
        if self.averaged is not self.model:
            pairs = zip(self.averaged.non_trainable_weights, self.model.non_trainable_weights, strict=True)
            for ours, theirs in pairs:
                ours.assign(theirs)

    @tf.function
    def _evaluate_all(self, batches: tf.distribute.DistributedDataset) -> tuple[tf.Tensor, tf.Tensor]:
        loss, right = 0.0, 0.0
        for images, labels in batches:
            losses, rights = self.strategy.run(self._count_step, (images, labels))
            loss += self.strategy.reduce("SUM", losses, axis=None)
            right += self.strategy.reduce("SUM", rights, axis=None)
        return loss, right

    def _count(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.averaged(images, training=False)
        somebody = labels >= 0
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        return tf.reduce_sum(tf.where(somebody, losses, 0.0)), _right(logits, labels)

    # State

    def variables(self) -> dict[str, keras.Variable]:
        """Everything that a step changes, by name."""
        # By number, because Keras names what holds random state differently in each process.
        return {
            **{f"model/{number:04d}-{one.name}": one for number, one in enumerate(self.model.variables)},
            **{f"optimizer/{number:04d}-{one.name}": one for number, one in enumerate(self.optimizer.variables)},
            "loss_scale": self.loss_scale,
            "finite_steps": self.finite_steps,
        }

    def state(self) -> dict[str, np.ndarray]:
        return {name: np.array(variable) for name, variable in self.variables().items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        for name, variable in self.variables().items():
            variable.assign(state[name])


def _right(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels), tf.float32))

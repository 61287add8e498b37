"""Training of a ViT from the first epoch to the last."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer import devices
from trainer.checkpoint import Checkpoints
from trainer.history import History, Row
from trainer.input import Split
from trainer.learner import Learner
from trainer.optimizer import WarmupCosine
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.vit import ViT, copy_weights

log = logging.getLogger(__name__)

_SECONDS_PER_LINE = 30  # between two log lines within an epoch


class Trained(NamedTuple):
    """Result of a training. The models are in float32."""

    best: ViT  # model of the epoch with the highest accuracy on val, or of the last epoch if val was trained on
    last: ViT  # model of the last epoch
    rows: list[Row]  # figures of all epochs


def build_vit(
    model: ModelSettings,
    classes: int,
    mean: Sequence[float] | np.ndarray,
    std: Sequence[float] | np.ndarray,
    policy: str = "float32",
) -> ViT:
    """Build a new ViT.

    Args:
        model: Settings of the model.
        classes: Number of classes.
        mean: Mean of the pixels of each channel, in units of 0 to 255, [3].
        std: Standard deviation of the pixels of each channel, in units of 0 to 255, [3].
        policy: Keras dtype policy.

    Returns:
        The ViT.
    """
    sizes = model.model_dump(exclude={"size"})
    return ViT(**sizes, classes=classes, mean=mean, std=std, dtype=keras.DTypePolicy(policy), name="vit")


def train(
    build: Callable[[str], ViT],
    classes: int,
    augmentation: AugmentSettings,
    training: TrainingSettings,
    train_split: Split,
    val_split: Split,
    log_dir: Path | None,
    checkpoints: Checkpoints,
    strategy: tf.distribute.Strategy | None = None,
    start: ViT | None = None,
    earlier: Sequence[Row] = (),
    teacher: Callable[[str], keras.Model] | None = None,
    after_epoch: Callable[[list[Row]], None] | None = None,
) -> Trained:
    """Train the trainable layers of a classifier: a ViT or its teacher.

    Training continues from the newest checkpoint. Without a checkpoint it starts from the weights of `start`, or else
    from those of a newly built model. On several workers, each worker calls this function with the same arguments, and
    all of them share the folder of checkpoints.

    Args:
        build: Function that builds the ViT for a Keras dtype policy.
        classes: Number of classes.
        augmentation: Settings of the augmentation.
        training: Settings of the training.
        train_split: Images to train on. With resized crops they may be larger than the model's input.
        val_split: Images that select the best epoch, of the size of the model's input. With `training.use_val`, the
            last epoch counts as the best one, and these images are only used to check that the weights are finite.
        log_dir: Folder of the history. None: it is not written.
        checkpoints: Checkpoints of this training.
        strategy: Strategy that distributes a step over devices. None: one device.
        start: ViT whose weights to start from. None: the weights of the newly built model.
        earlier: History of an earlier phase of the same training, whose best model is `start`. Epochs are numbered from
            its last epoch, and the best epoch is chosen among those of both phases.
        teacher: Function that builds the trained teacher for a Keras dtype policy. None: the labels alone are learned.
        after_epoch: Called with the history after each epoch, once its checkpoint is written. It may raise an exception
            to end the training.

    Returns:
        The models of the best and of the last epoch, and the history, which includes `earlier`.

    Raises:
        FloatingPointError: If a loss is not finite.
        ValueError: If the settings do not fit the data or the devices, or the weights of `start` do not fit the model.
        RuntimeError: If the workers see different checkpoints.
    """
    strategy = strategy or tf.distribute.get_strategy()
    steps_per_epoch = len(train_split) // training.batch_size
    if not steps_per_epoch:
        raise ValueError(
            f"training.batch_size {training.batch_size} is more than the {len(train_split)} training images: lower it"
        )
    precision = devices.resolve_precision(training.precision)
    keras.utils.set_random_seed(training.seed)
    schedule = WarmupCosine(
        training.learning_rate,
        total_steps=training.epochs * steps_per_epoch,
        warmup_steps=min(round(training.warmup_epochs * steps_per_epoch), training.epochs * steps_per_epoch - 1),
        floor=training.final_learning_rate,
    )
    policy = precision if precision == "float32" else f"mixed_{precision}"
    learner = Learner(
        lambda: build(policy),
        classes,
        schedule,
        training,
        augmentation,
        val_split.images.shape[1],
        steps_per_epoch,
        strategy,
        (lambda: teacher(policy)) if teacher else None,
    )
    log.info(
        "%s in %s on %s, %s training and %s validation images, %s steps an epoch",
        _describe_parameters(learner.model),
        precision,
        _describe_devices(strategy),
        f"{len(train_split):,}",
        f"{len(val_split):,}",
        f"{steps_per_epoch:,}",
    )

    initial = learner.state() | _named_weights(learner)
    checkpoint = checkpoints.newest(like=initial)
    before, done, rows, last_good = len(earlier), 0, [*earlier], None
    if checkpoint:
        learner.restore(checkpoint.arrays)
        best_weights = [checkpoint.arrays[name] for name in _named_weights(learner)]
        done, rows, last_good = checkpoint.epoch, checkpoint.info["history"], checkpoint.path
    elif start is not None:
        for model in learner.model, learner.averaged:
            copy_weights(start, model)
        best_weights = learner.averaged.get_weights()
    history = History(log_dir if devices.is_chief(strategy) else None, before + training.epochs, rows)
    _check_same_epoch_on_all_workers(strategy, done)

    batches = learner.batches(train_split, first_epoch=done)
    saved_at = time.monotonic()
    for epoch in range(done, training.epochs):
        if _is_out_of_patience(history, before, training.patience):
            break
        started = line_at = time.monotonic()
        mixing = epoch < augmentation.mixing_epochs * training.epochs
        loss = correct = 0.0
        step = timed_from = 0
        for progress in learner.train(batches, steps_per_epoch, mixing):
            if progress.bad_step >= 0:
                raise _not_finite_error(before + epoch, progress.bad_step, schedule, last_good)
            step += progress.steps
            loss, correct = loss + progress.loss * progress.steps, correct + progress.accuracy * progress.steps
            now = time.monotonic()
            if progress.compiled:
                log.info("compiled the step in %.0f s", now - started)
                started, timed_from = now, 1
            elif now - line_at > _SECONDS_PER_LINE and step < steps_per_epoch:
                line_at = now
                log.info(
                    "epoch %d/%d  %d %%  loss %.3f",
                    before + epoch + 1,
                    history.epochs,
                    100 * step / steps_per_epoch,
                    progress.loss,
                )
        trained = time.monotonic()
        val_loss, val_accuracy = learner.evaluate(val_split)
        if not math.isfinite(val_loss):  # the last step had a finite loss, but made weights that are not finite
            raise _not_finite_error(before + epoch, (epoch + 1) * steps_per_epoch - 1, schedule, last_good)
        measured = {} if training.use_val else {"val_loss": val_loss, "val_accuracy": val_accuracy}
        if training.use_val or not history.rows or val_accuracy > history.best()["val_accuracy"]:
            best_weights = learner.averaged.get_weights()
        history.add(
            {
                "epoch": before + epoch + 1,
                "loss": loss / steps_per_epoch,
                "accuracy": correct / steps_per_epoch,
                **measured,
                "learning_rate": float(schedule((epoch + 1) * steps_per_epoch - 1)),
                "images_per_second": (steps_per_epoch - timed_from) * training.batch_size / (trained - started),
                "seconds": time.monotonic() - started,
            }
        )
        ends = epoch + 1 == training.epochs or _is_out_of_patience(history, before, training.patience)
        due = time.monotonic() - saved_at >= training.checkpoint_seconds
        if (ends or due) and devices.is_chief(strategy):
            arrays = learner.state() | dict(zip(_named_weights(learner), best_weights, strict=True))
            last_good = checkpoints.save(epoch + 1, arrays, {"history": history.rows})
            saved_at = time.monotonic()
        if after_epoch:
            after_epoch(history.rows)
    models = build("float32"), build("float32")
    learner.average()
    for model, weights in zip(models, (best_weights, learner.averaged.get_weights()), strict=True):
        model.set_weights(weights)
    return Trained(*models, history.rows)


def _named_weights(learner: Learner) -> dict[str, np.ndarray]:
    """Return the averaged weights by the names under which a checkpoint stores the best weights."""
    return {f"best/{number:04d}": weight for number, weight in enumerate(learner.averaged.get_weights())}


def _not_finite_error(epoch: int, step: int, schedule: WarmupCosine, last_good: Path | None) -> FloatingPointError:
    return FloatingPointError(
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1}, at learning rate {float(schedule(step)):.2e}: "
        "lower training.learning_rate, or the learning rates of finetune. The last good checkpoint: "
        f"{last_good or 'none was due yet'}"
    )


def _is_out_of_patience(history: History, before: int, patience: int | None) -> bool:
    if patience is None or len(history.rows) == before:
        return False
    return history.rows[-1]["epoch"] - max(history.best()["epoch"], before) >= patience


def _check_same_epoch_on_all_workers(strategy: tf.distribute.Strategy, done: int) -> None:
    mean = devices.mean_over_workers(strategy, float(done))
    if mean != done:
        raise RuntimeError(
            f"this worker continues after epoch {done}, but other workers do not (after epoch {mean:g} on average): "
            "put the checkpoints in a folder that all workers share"
        )


def _describe_parameters(model: keras.Model) -> str:
    total = model.count_params()
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return f"{total:,} parameters" if trainable == total else f"{trainable:,} of {total:,} parameters"


def _describe_devices(strategy: tf.distribute.Strategy) -> str:
    replicas = strategy.num_replicas_in_sync
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return f"{replicas} {kind}s" if replicas > 1 else f"one {kind}"

"""The training of a ViT from its first epoch to its last."""

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

_SECONDS_PER_LINE = 30  # of progress within an epoch


class Trained(NamedTuple):
    """The model of the best epoch on val and that of the last, in float32, and the rows of all epochs (`History`)."""

    best: ViT
    last: ViT
    rows: list[Row]


def vit(
    model: ModelSettings,
    classes: int,
    mean: Sequence[float] | np.ndarray,
    std: Sequence[float] | np.ndarray,
    policy: str = "float32",
) -> ViT:
    """A new ViT as the settings have it, that computes in `policy`."""
    sizes = model.model_dump(exclude={"size"})
    return ViT(**sizes, classes=classes, mean=mean, std=std, dtype=keras.DTypePolicy(policy), name="vit")


def train(
    build: Callable[[str], ViT],
    classes: int,
    augmentation: AugmentSettings,
    training: TrainingSettings,
    train_split: Split,
    val_split: Split,
    log_dir: Path,
    checkpoints: Checkpoints,
    strategy: tf.distribute.Strategy | None = None,
    start: ViT | None = None,
    earlier: Sequence[Row] = (),
) -> Trained:
    """Train what `build` makes for a dtype policy, or as much of it as is trainable.

    Goes on from the newest of `checkpoints` where there is one; else from the weights of `start`, or of `build`.
    `earlier` are the rows of the phases before, whose best weights are `start`: epochs count on from them, and the best
    epoch is that of all phases. On several workers each calls this with the same arguments and sees the same
    `checkpoints`.

    Raises FloatingPointError when a loss is not finite, ValueError when the settings do not fit the data, the devices
    or `start`.
    """
    strategy = strategy or tf.distribute.get_strategy()
    steps_per_epoch = len(train_split) // training.batch_size
    if not steps_per_epoch:
        raise ValueError(
            f"training.batch_size {training.batch_size} is more than the {len(train_split)} training images: lower it"
        )
    precision = devices.precision(training.precision)
    keras.utils.set_random_seed(training.seed)
    schedule = WarmupCosine(
        training.learning_rate,
        total_steps=training.epochs * steps_per_epoch,
        warmup_steps=min(round(training.warmup_epochs * steps_per_epoch), training.epochs * steps_per_epoch - 1),
        floor=training.final_learning_rate,
    )
    learner = Learner(
        lambda: build(precision if precision == "float32" else f"mixed_{precision}"),
        classes,
        schedule,
        training,
        augmentation,
        steps_per_epoch,
        strategy,
    )
    log.info(
        "%s in %s on %s, %s training and %s validation images, %s steps an epoch",
        _parameters(learner.model),
        precision,
        _where(strategy),
        f"{len(train_split):,}",
        f"{len(val_split):,}",
        f"{steps_per_epoch:,}",
    )

    initial = learner.state() | _best(learner)
    found = checkpoints.newest(like=initial)
    before, done, rows, last_good = len(earlier), 0, [*earlier], None
    if found:
        learner.restore(found.arrays)
        best_weights = [found.arrays[name] for name in _best(learner)]
        done, rows, last_good = found.epoch, found.info["history"], found.path
    elif start is not None:
        for model in learner.model, learner.averaged:
            copy_weights(start, model)
        best_weights = learner.averaged.get_weights()
    history = History(log_dir if devices.is_chief(strategy) else None, before + training.epochs, rows)
    _check_that_all_workers_go_on_alike(strategy, done)

    batches = learner.batches(train_split, first_epoch=done)
    saved_at = time.monotonic()
    for epoch in range(done, training.epochs):
        if _is_out_of_patience(history, before, training.patience):
            break
        started = line_at = time.monotonic()
        mixing = epoch < augmentation.mixing_epochs * training.epochs
        loss = right = 0.0
        step = timed_from = 0
        for progress in learner.train(batches, steps_per_epoch, mixing):
            if progress.bad_step >= 0:
                raise _not_finite(before + epoch, progress.bad_step, schedule, last_good)
            step += progress.steps
            loss, right = loss + progress.loss * progress.steps, right + progress.accuracy * progress.steps
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
        if not math.isfinite(val_loss):  # the last step's loss was fine and what it made of the weights was not
            raise _not_finite(before + epoch, (epoch + 1) * steps_per_epoch - 1, schedule, last_good)
        better = not history.rows or val_accuracy > history.best()["val_accuracy"]
        if better:
            best_weights = learner.averaged.get_weights()
        history.add(
            {
                "epoch": before + epoch + 1,
                "loss": loss / steps_per_epoch,
                "accuracy": right / steps_per_epoch,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "learning_rate": float(schedule((epoch + 1) * steps_per_epoch - 1)),
                "images_per_second": (steps_per_epoch - timed_from) * training.batch_size / (trained - started),
                "seconds": time.monotonic() - started,
            }
        )
        ends = epoch + 1 == training.epochs or _is_out_of_patience(history, before, training.patience)
        due = time.monotonic() - saved_at >= training.checkpoint_seconds
        if (ends or due) and devices.is_chief(strategy):
            arrays = learner.state() | dict(zip(_best(learner), best_weights, strict=True))
            last_good = checkpoints.save(epoch + 1, arrays, {"history": history.rows})
            saved_at = time.monotonic()
    models = build("float32"), build("float32")
    learner.average()
    for model, weights in zip(models, (best_weights, learner.averaged.get_weights()), strict=True):
        model.set_weights(weights)
    return Trained(*models, history.rows)


def _best(learner: Learner) -> dict[str, np.ndarray]:
    """The averaged weights under the names that a checkpoint keeps the best ones by."""
    return {f"best/{number:04d}": weight for number, weight in enumerate(learner.averaged.get_weights())}


def _not_finite(epoch: int, step: int, schedule: WarmupCosine, last_good: Path | None) -> FloatingPointError:
    return FloatingPointError(
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1}, at learning rate {float(schedule(step)):.2e}: "
        f"lower training.learning_rate, or finetune's. The last good checkpoint: {last_good or 'none was due yet'}"
    )


def _is_out_of_patience(history: History, before: int, patience: int | None) -> bool:
    if patience is None or len(history.rows) == before:
        return False
    return history.rows[-1]["epoch"] - max(history.best()["epoch"], before) >= patience


def _check_that_all_workers_go_on_alike(strategy: tf.distribute.Strategy, done: int) -> None:
    mean = devices.mean(strategy, float(done))
    if mean != done:
        raise RuntimeError(
            f"this worker goes on after epoch {done}, others elsewhere (on average after {mean:g}): the checkpoints "
            "must lie in a folder that all workers share"
        )


def _parameters(model: keras.Model) -> str:
    """How many there are, in words, and how many of them are trained."""
    every = model.count_params()
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return f"{every:,} parameters" if trained == every else f"{trained:,} of {every:,} parameters"


def _where(strategy: tf.distribute.Strategy) -> str:
    """The devices, in words."""
    replicas = strategy.num_replicas_in_sync
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return f"{replicas} {kind}s" if replicas > 1 else f"one {kind}"

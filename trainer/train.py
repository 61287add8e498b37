"""Train a ViT on transformed examples and write the SavedModel. `run_fn` is what TFX's Trainer calls."""

import hashlib
import json
import logging
import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from trainer import devices, serving
from trainer.checkpoint import Checkpoints
from trainer.examples import class_names
from trainer.history import History
from trainer.input import Split, load
from trainer.learner import Learner
from trainer.optimizer import WarmupCosine
from trainer.preprocessing import read_moments
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.vit import ViT, copy_weights

log = logging.getLogger(__name__)

_STEPS_PER_LOOK = 50  # steps between two looks at the loss: each look waits for the device
_WARMUP_IMAGES = 32  # as many as clients send at once
_SECONDS_PER_LINE = 30  # of progress within an epoch

# What of the training settings does not change its result.
_WITHOUT_EFFECT = {"require_gpu", "memory_gib", "checkpoint_seconds"}


def run_fn(fn_args) -> None:
    """Train on the `train` split, choose the epoch on `val`, export to `fn_args.serving_model_dir`.

    `fn_args.custom_config` carries "model", "augment" and "training", the settings as JSON, "checkpoints", the folder
    that they go under, and "code", a digest of this package's sources; "leave_out", where given, is a file with a JSON
    list of ids (bytes that are no UTF-8 as surrogates) of examples to do without. `fn_args.base_model`, where given, is
    the SavedModel to start from. `fn_args.model_run_dir` receives the history and the last weights.
    """
    config = fn_args.custom_config
    model_settings = ModelSettings.model_validate_json(config["model"])
    augmentation = AugmentSettings.model_validate_json(config["augment"])
    training = TrainingSettings.model_validate_json(config["training"])
    if training.require_gpu and not tf.config.list_physical_devices("GPU"):
        raise RuntimeError(
            "training.require_gpu is set and TensorFlow sees no GPU: run on a GPU worker (`vitpipe doctor` says "
            "what TensorFlow sees), take the preset cifar10-cpu, or --set training.require_gpu=false"
        )
    strategy = devices.strategy()

    schema = schema_pb2.Schema()
    with tf.io.gfile.GFile(fn_args.schema_path) as file:
        names = class_names(text_format.Parse(file.read(), schema))
    mean, std = read_moments(tft.TFTransformOutput(fn_args.transform_output))
    size = model_settings.image_size
    leave_out: set[bytes] = set()
    if "leave_out" in config:
        listed = json.loads(Path(config["leave_out"]).read_text("utf-8"))
        leave_out = {id.encode("utf-8", "surrogateescape") for id in listed}
        log.info(f"{len(leave_out):,} examples that leak between splits are left out")
    train_split, val_split = (
        load(files, size, training.memory_gib, leave_out) for files in (fn_args.train_files, fn_args.eval_files)
    )

    decisive = [
        config["model"], config["augment"], training.model_dump_json(exclude=_WITHOUT_EFFECT), config["code"],
        devices.precision(training.precision), train_split.digest(), val_split.digest(), str(fn_args.base_model),
    ]  # fmt: skip
    course = hashlib.sha256("\0".join(decisive).encode()).hexdigest()[:16]
    run_dir = Path(fn_args.model_run_dir)
    best, last = train(
        model_settings, augmentation, training, train_split, val_split, len(names), mean, std,
        log_dir=run_dir, checkpoints=Checkpoints(Path(config["checkpoints"], course)), strategy=strategy,
        start=serving.load_vit(fn_args.base_model) if fn_args.base_model else None,
    )  # fmt: skip
    if devices.is_chief(strategy):
        last.save(run_dir / "last.keras")
        serving.export(best, names, size, fn_args.serving_model_dir, warmup=val_split.images[:_WARMUP_IMAGES])
    devices.wait_for_all(strategy)  # TFX looks for the export as soon as this returns


def train(
    model_settings: ModelSettings,
    augmentation: AugmentSettings,
    training: TrainingSettings,
    train_split: Split,
    val_split: Split,
    classes: int,
    mean,
    std,
    log_dir: Path,
    checkpoints: Checkpoints,
    strategy: tf.distribute.Strategy | None = None,
    start: ViT | None = None,
) -> tuple[ViT, ViT]:
    """The ViT of the best epoch on `val_split` and that of the last, in float32.

    Goes on from the newest of `checkpoints` where there is one; else from the weights of `start`, or from new ones.
    On several workers each calls this with the same arguments and sees the same `checkpoints`.

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

    def vit(policy: str) -> ViT:
        return ViT(
            **model_settings.model_dump(exclude={"size"}),
            classes=classes, mean=mean, std=std, dtype=keras.DTypePolicy(policy), name="vit",
        )  # fmt: skip

    keras.utils.set_random_seed(training.seed)
    schedule = WarmupCosine(
        training.learning_rate,
        total_steps=training.epochs * steps_per_epoch,
        warmup_steps=min(round(training.warmup_epochs * steps_per_epoch), training.epochs * steps_per_epoch - 1),
        floor=training.final_learning_rate,
    )
    learner = Learner(
        lambda: vit(precision if precision == "float32" else f"mixed_{precision}"),
        classes, schedule, training, augmentation, steps_per_epoch, strategy,
    )  # fmt: skip
    log.info(
        "%s parameters in %s on %s, %s training and %s validation images, %s steps an epoch",
        f"{learner.model.count_params():,}", precision, _where(strategy), f"{len(train_split):,}",
        f"{len(val_split):,}", f"{steps_per_epoch:,}",
    )  # fmt: skip

    initial = learner.state() | _best(learner)
    found = checkpoints.newest(like=initial)
    done, earlier, last_good = 0, [], None
    if found:
        learner.restore(found.arrays)
        best_weights = [found.arrays[name] for name in _best(learner)]
        done, earlier, last_good = found.epoch, found.info["history"], found.path
    elif start is not None:
        copy_weights(start, learner.model)
        log.info("started from the weights of the model serving now")
    history = History(log_dir if devices.is_chief(strategy) else None, training.epochs, earlier)
    _check_that_all_workers_go_on_alike(strategy, done)

    batches = learner.batches(train_split, first_epoch=done)
    saved_at = time.monotonic()
    for epoch in range(done, training.epochs):
        if _is_out_of_patience(history, training.patience):
            break
        started = line_at = time.monotonic()
        mixing = epoch < augmentation.mixing_epochs * training.epochs
        loss = right = 0.0
        step = timed_from = 0
        while step < steps_per_epoch:
            compiles = epoch == done and step == 0
            steps = 1 if compiles else min(_STEPS_PER_LOOK, steps_per_epoch - step)
            progress = learner.train(batches, steps, mixing)
            if progress.bad_step >= 0:
                raise _not_finite(epoch, progress.bad_step, schedule, last_good)
            step, loss, right = step + steps, loss + progress.loss * steps, right + progress.accuracy * steps
            now = time.monotonic()
            if compiles:
                log.info("compiled the step in %.0f s", now - started)
                started, timed_from = now, 1
            elif now - line_at > _SECONDS_PER_LINE and step < steps_per_epoch:
                line_at = now
                log.info("epoch %d/%d  %d %%  loss %.3f", epoch + 1, training.epochs, 100 * step / steps_per_epoch,
                         progress.loss)  # fmt: skip
        trained = time.monotonic()
        val_loss, val_accuracy = learner.evaluate(val_split)
        if not math.isfinite(val_loss):  # the last step's loss was fine and what it made of the weights was not
            raise _not_finite(epoch, (epoch + 1) * steps_per_epoch - 1, schedule, last_good)
        better = not history.rows or val_accuracy > history.best()["val_accuracy"]
        if better:
            best_weights = learner.averaged.get_weights()
        history.add(
            {
                "epoch": epoch + 1,
                "loss": loss / steps_per_epoch,
                "accuracy": right / steps_per_epoch,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "learning_rate": float(schedule((epoch + 1) * steps_per_epoch - 1)),
                "images_per_second": (steps_per_epoch - timed_from) * training.batch_size / (trained - started),
                "seconds": time.monotonic() - started,
            }
        )
        ends = epoch + 1 == training.epochs or _is_out_of_patience(history, training.patience)
        due = time.monotonic() - saved_at >= training.checkpoint_seconds
        if (ends or due) and devices.is_chief(strategy):
            arrays = learner.state() | dict(zip(_best(learner), best_weights, strict=True))
            last_good = checkpoints.save(epoch + 1, arrays, {"history": history.rows})
            saved_at = time.monotonic()
    best_row = history.best()
    log.info(
        "exported: the %s of epoch %d, the best on val: accuracy %.4f",
        "weights" if learner.averaged is learner.model else "averaged weights", best_row["epoch"],
        best_row["val_accuracy"],
    )  # fmt: skip
    models = vit("float32"), vit("float32")
    learner.average()
    for model, weights in zip(models, (best_weights, learner.averaged.get_weights()), strict=True):
        model.set_weights(weights)
    return models


def _best(learner: Learner) -> dict[str, np.ndarray]:
    """The averaged weights under the names that a checkpoint keeps the best ones by."""
    return {f"best/{number:04d}": weight for number, weight in enumerate(learner.averaged.get_weights())}


def _not_finite(epoch: int, step: int, schedule: WarmupCosine, last_good: Path | None) -> FloatingPointError:
    return FloatingPointError(
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1}, at learning rate {float(schedule(step)):.2e}: "
        f"lower training.learning_rate. The last good checkpoint: {last_good or 'none was due yet'}"
    )


def _is_out_of_patience(history: History, patience: int | None) -> bool:
    if patience is None or not history.rows:
        return False
    return history.rows[-1]["epoch"] - history.best()["epoch"] >= patience


def _check_that_all_workers_go_on_alike(strategy: tf.distribute.Strategy, done: int) -> None:
    mean = devices.mean(strategy, float(done))
    if mean != done:
        raise RuntimeError(
            f"this worker goes on after epoch {done}, others elsewhere (on average after {mean:g}): the checkpoints "
            "must lie in a folder that all workers share"
        )


def _where(strategy: tf.distribute.Strategy) -> str:
    """The devices, in words."""
    replicas = strategy.num_replicas_in_sync
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return f"{replicas} {kind}s" if replicas > 1 else f"one {kind}"

"""Train a ViT on transformed examples and write the SavedModel. `run_fn` is what TFX's Trainer calls."""

import json
import logging
import math
import time
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from trainer import serving
from trainer.augment import Augment
from trainer.examples import class_names
from trainer.input import Split, evaluation_batches, load, training_batches
from trainer.optimizer import WarmupCosine, adamw
from trainer.preprocessing import read_moments
from trainer.settings import ModelSettings, TrainingSettings
from trainer.vit import ViT

log = logging.getLogger(__name__)


def run_fn(fn_args) -> None:
    """Train on the `train` split, choose the epoch on `val`, export to `fn_args.serving_model_dir`.

    `fn_args.custom_config` carries "model" and "training", the settings as JSON. The history of the epochs goes to
    `history.jsonl` in `fn_args.model_run_dir`.
    """
    model_settings = ModelSettings.model_validate_json(fn_args.custom_config["model"])
    training = TrainingSettings.model_validate_json(fn_args.custom_config["training"])
    schema = schema_pb2.Schema()
    with tf.io.gfile.GFile(fn_args.schema_path) as file:
        names = class_names(text_format.Parse(file.read(), schema))
    mean, std = read_moments(tft.TFTransformOutput(fn_args.transform_output))
    size = model_settings.image_size
    train_split, val_split = load(fn_args.train_files, size), load(fn_args.eval_files, size)
    model = train(model_settings, training, train_split, val_split, len(names), mean, std, Path(fn_args.model_run_dir))
    serving.export(model, names, size, fn_args.serving_model_dir)


def train(
    model_settings: ModelSettings,
    training: TrainingSettings,
    train_split: Split,
    val_split: Split,
    classes: int,
    mean,
    std,
    log_dir: Path,
) -> ViT:
    """A ViT with the weights of its best epoch on `val_split`, in float32."""
    if training.require_gpu and not tf.config.list_physical_devices("GPU"):
        raise RuntimeError(
            "training.require_gpu is set and TensorFlow sees no GPU: run on a GPU worker (`vitpipe doctor` says "
            "what TensorFlow sees), take the preset cifar10-cpu, or --set training.require_gpu=false"
        )
    steps_per_epoch = len(train_split) // training.batch_size
    if not steps_per_epoch:
        raise ValueError(
            f"training.batch_size {training.batch_size} is more than the {len(train_split)} training images: lower it"
        )
    keras.utils.set_random_seed(training.seed)
    policy = training.precision if training.precision == "float32" else f"mixed_{training.precision}"

    def vit(dtype):
        return ViT(**model_settings.model_dump(), classes=classes, mean=mean, std=std, dtype=keras.DTypePolicy(dtype))

    model = vit(policy)
    # Only the ViT is exported: what augments the images stays behind.
    learner = keras.Sequential([Augment(training.crop_padding, training.flip, training.seed), model])
    schedule = WarmupCosine(
        training.learning_rate,
        total_steps=training.epochs * steps_per_epoch,
        warmup_steps=min(round(training.warmup_epochs * steps_per_epoch), training.epochs * steps_per_epoch - 1),
        floor=training.final_learning_rate,
    )
    learner.compile(
        optimizer=adamw(model, schedule, training.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=training.label_smoothing),
        metrics=["accuracy"],
        jit_compile=True,  # on two CPU cores, too, up to twice as fast where an image has 64 patches
    )
    log.info(
        "%s parameters, %s training and %s validation images, %s steps an epoch",
        f"{model.count_params():,}", f"{len(train_split):,}", f"{len(val_split):,}", f"{steps_per_epoch:,}",
    )  # fmt: skip
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=training.epochs, restore_best_weights=True
    )
    learner.fit(
        training_batches(train_split, classes, training.batch_size, training.seed),
        validation_data=evaluation_batches(val_split, classes, training.batch_size),
        epochs=training.epochs,
        callbacks=[EpochLog(log_dir / "history.jsonl", training.epochs, steps_per_epoch * training.batch_size), best],
        shuffle=False,  # the batches come shuffled
        verbose=0,
    )
    log.info("kept epoch %d, the best on val: accuracy %.4f", best.best_epoch + 1, best.best)
    exported = vit("float32")
    exported.set_weights(model.get_weights())
    return exported


class EpochLog(keras.callbacks.Callback):
    """One log line and one line of JSON an epoch; stops at a loss that is not finite."""

    def __init__(self, history: Path, epochs: int, images: int):
        super().__init__()
        self.history, self.epochs, self.images = history, epochs, images
        history.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_test_begin(self, logs=None):
        self.trained = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        learning_rate = float(self.model.optimizer.learning_rate)
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss is {logs['loss']} in epoch {epoch + 1}, at learning rate {learning_rate:.2e}: "
                "lower training.learning_rate"
            )
        row = {
            "epoch": epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_loss": logs["val_loss"],
            "val_accuracy": logs["val_accuracy"],
            "learning_rate": learning_rate,
            "images_per_second": self.images / (self.trained - self.started),
            "seconds": time.monotonic() - self.started,
        }
        with self.history.open("a") as file:
            file.write(json.dumps(row) + "\n")
        log.info(
            "epoch %d/%d  loss %.3f  accuracy %.3f  val %.3f  %.0f images/s  %.0f s",
            epoch + 1, self.epochs, row["loss"], row["accuracy"], row["val_accuracy"], row["images_per_second"],
            row["seconds"],
        )  # fmt: skip

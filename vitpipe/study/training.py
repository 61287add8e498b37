"""Training of one cell of a study."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipeline.console.logs import redirected
from trainer import devices
from trainer.backbone import load_backbone
from trainer.finetune import adapt, phases
from trainer.input import Split
from trainer.learner import Learner
from trainer.optimizer import WarmupCosine
from trainer.settings import ModelSettings, TrainingSettings
from vitpipe.study.architectures import Architecture, Moments, ShiftedDepthwise
from vitpipe.study.cells import Result
from vitpipe.study.settings import StudySettings


def train_logged(
    log: Path,
    architecture: Architecture | str,
    settings: StudySettings,
    steps: int,
    seed: int,
    train_split: Split,
    test_split: Split,
    classes: int,
) -> Result:
    """Call `train`, with everything that libraries print appended to a file.

    Args:
        log: the file.
        architecture: see `train`, like all other arguments.
        settings: the settings of the study.
        steps: number of optimizer steps.
        seed: the seed of the training.
        train_split: the images to train on.
        test_split: the images to evaluate on.
        classes: number of classes.

    Returns:
        The result of the cell.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    with redirected(log):
        return train(architecture, settings, steps, seed, train_split, test_split, classes)


def train(
    architecture: Architecture | str,
    settings: StudySettings,
    steps: int,
    seed: int,
    train_split: Split,
    test_split: Split,
    classes: int,
) -> Result:
    """Train a model, then evaluate its last weights on the test split. No epoch is selected.

    Args:
        architecture: a registered architecture, or the source of a pretrained ViT's backbone.
        settings: the settings of the study.
        steps: number of optimizer steps.
        seed: seed of the initial weights, the shuffling and the augmentation.
        train_split: the images to train on.
        test_split: the images to evaluate on.
        classes: number of classes.

    Returns:
        The result of the cell.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    precision = devices.resolve_precision(settings.precision)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    try:
        if isinstance(architecture, str):
            learner, per_step = _train_pretrained(architecture, settings, steps, seed, train_split, classes)
        else:
            mean, std = moments(train_split.images)
            warmup = min(round(settings.warmup * steps), steps - 1)
            schedule = WarmupCosine(architecture.learning_rate, steps, warmup, 0.0)
            learner = _make_learner(
                lambda: architecture.build(settings.image_size, classes, mean, std),
                settings,
                schedule,
                architecture.weight_decay,
                seed,
                train_split,
                classes,
            )
            per_step = _train_steps(learner, train_split, steps, settings, 0, steps)
        loss, accuracy = learner.evaluate(test_split)
    finally:
        keras.config.set_dtype_policy(before)
    if not math.isfinite(loss):
        raise FloatingPointError("the loss on the test split is not finite: lower the learning rate")
    return Result(
        right=round(accuracy * len(test_split)),
        examples=len(test_split),
        log_loss=loss,
        parameters=learner.model.count_params(),
        multiply_adds=multiply_adds(learner.model, settings.image_size),
        seconds=time.monotonic() - started,
        seconds_per_step=per_step,
    )


def _train_pretrained(
    source: str, settings: StudySettings, steps: int, seed: int, train_split: Split, classes: int
) -> tuple[Learner, float]:
    """Train the head alone, then the head and the last blocks. The second phase continues with the first one's weights.

    Returns:
        The learner of the second phase, and the mean duration of a step in seconds.
    """
    backbone = load_backbone(source, finetune=settings.finetune)
    model = ModelSettings(image_size=settings.image_size, patch_size=backbone.config["patch_size"])
    plan = phases(settings.finetune)
    epochs = sum(phase.epochs for phase in plan)
    done, seconds, learner = 0, 0.0, None
    for phase in plan:
        count = steps if phase is plan[-1] else min(max(round(steps * phase.epochs / epochs), 1), steps - 1)
        count -= done
        build = partial(adapt, backbone, model, classes, phase.blocks, keras.config.dtype_policy().name)
        schedule = WarmupCosine(phase.learning_rate, count, 0, 0.0)
        weights = learner.model.get_weights() if learner else None
        learner = _make_learner(build, settings, schedule, phase.weight_decay, seed, train_split, classes)
        if weights:
            learner.model.set_weights(weights)
        seconds += count * _train_steps(learner, train_split, count, settings, done, steps)
        done += count
    assert learner is not None  # the settings require at least one phase
    return learner, seconds / steps


def _make_learner(
    build: Callable[[], keras.Model],
    settings: StudySettings,
    schedule: WarmupCosine,
    weight_decay: float,
    seed: int,
    train_split: Split,
    classes: int,
) -> Learner:
    # No architecture uses averaged weights, because the statistics of batch normalisation do not belong to them.
    training = TrainingSettings(
        batch_size=settings.batch_size,
        weight_decay=weight_decay,
        label_smoothing=settings.label_smoothing,
        ema_epochs=0,
        seed=seed,
    )
    per_epoch = len(train_split) // settings.batch_size
    return Learner(
        build,
        classes,
        schedule,
        training,
        settings.augment,
        settings.image_size,
        per_epoch,
        tf.distribute.get_strategy(),
    )


def _train_steps(learner: Learner, split: Split, steps: int, settings: StudySettings, first: int, total: int) -> float:
    """Take optimizer steps.

    Args:
        learner: the learner.
        split: the images to train on.
        steps: number of steps to take.
        settings: the settings of the study.
        first: number of steps of this cell that were taken before.
        total: number of all steps of this cell.

    Returns:
        The mean duration of a step in seconds, without the first step.
    """
    per_epoch = learner.steps_per_epoch
    batches = learner.batches(split, first_epoch=-(-first // per_epoch))
    mixed = min(max(round(settings.augment.mixing_epochs * total) - first, 0), steps)  # steps that mix images
    started = time.monotonic()
    parts = learner.train(batches, mixed, mixing=True), learner.train(batches, steps - mixed, mixing=False)
    for progress in chain(*parts):
        if progress.bad_step >= 0:
            step = first + progress.bad_step + 1
            raise FloatingPointError(f"the loss is not finite in step {step}: lower the learning rate")
        if progress.compiled:
            started = time.monotonic()
    return (time.monotonic() - started) / max(steps - 1, 1)


def moments(images: np.ndarray) -> tuple[Moments, Moments]:
    """Return mean and standard deviation of each channel over all pixels. The deviation is at least 1."""
    return tuple(images.mean((0, 1, 2)).tolist()), tuple(np.maximum(images.std((0, 1, 2)), 1.0).tolist())


def multiply_adds(model: keras.Model, size: int) -> int:
    """Count the multiply-adds of convolutions and matrix products for one image, in the traced graph.

    Args:
        model: the model.
        size: side of the image, in pixels.
    """
    pixels = tf.TensorSpec((1, size, size, 3), tf.float32)
    graph = tf.function(lambda images: model(images, training=False)).get_concrete_function(pixels).graph
    shifted: int = sum(
        math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)
        for layer in _leaf_layers(model)
        if isinstance(layer, ShiftedDepthwise)
    )
    return shifted + sum(_count_products(operation) for operation in graph.get_operations())


def _leaf_layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield from _leaf_layers(layer) if isinstance(layer, keras.Model) else (layer,)


def _count_products(operation: tf.Operation) -> int:
    """Return the multiply-adds of one operation; 0 if it is not a convolution or a matrix product."""

    def shape(tensor: tf.Tensor) -> list[int]:
        return list(tensor.shape.as_list())

    match operation.type:
        case "Conv2D":
            return math.prod(shape(operation.outputs[0])) * math.prod(shape(operation.inputs[1])[:3])
        case "DepthwiseConv2dNative":
            return math.prod(shape(operation.outputs[0])) * math.prod(shape(operation.inputs[1])[:2])
        case "MatMul":
            rows = shape(operation.inputs[0])
            return math.prod(shape(operation.outputs[0])) * rows[0 if operation.get_attr("transpose_a") else 1]
        case "BatchMatMulV2":
            rows = shape(operation.inputs[0])
            return math.prod(shape(operation.outputs[0])) * rows[-2 if operation.get_attr("adj_x") else -1]
        case "Einsum":
            terms = operation.get_attr("equation").decode().split("->")[0].split(",")
            sides: dict[str, int] = {}
            for term, tensor in zip(terms, operation.inputs, strict=True):
                sides |= dict(zip(term, shape(tensor), strict=True))
            return math.prod(sides.values())
    return 0

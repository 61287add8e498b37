"""Distillation: a small CNN that is trained first and then teaches the ViT (Touvron et al., 2020).

A CNN assumes that near pixels belong together, which a ViT has to learn. On small data sets a ViT that also learns from
the answers of a CNN becomes better than one that learns from labels alone (https://arxiv.org/abs/2012.12877).
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np

from trainer.checkpoint import Checkpoints
from trainer.input import Split
from trainer.resnet9 import ResNet9
from trainer.settings import AugmentSettings, TrainingSettings, teacher_settings
from trainer.train import train

log = logging.getLogger(__name__)


def train_teacher(
    classes: int,
    image_size: int,
    mean: np.ndarray,
    std: np.ndarray,
    augmentation: AugmentSettings,
    training: TrainingSettings,
    train_split: Split,
    val_split: Split,
    log_dir: Path | None,
    checkpoints: Checkpoints,
) -> Callable[[str], keras.Model]:
    """Train the CNN on one device, for `training.teacher_epochs` epochs and with its `teacher_settings`.

    Args:
        classes: Number of classes.
        image_size: Side of the images, in pixels, a multiple of 8.
        mean: Mean of the pixels of each channel, in units of 0 to 255, [3].
        std: Standard deviation of the pixels of each channel, in units of 0 to 255, [3].
        augmentation: Settings of the ViT's augmentation.
        training: Settings of the ViT's training.
        train_split: Images to train on.
        val_split: Images that select the best epoch.
        log_dir: Folder of the teacher's history. None: it is not written.
        checkpoints: Checkpoints of the teacher's training.

    Returns:
        Function that builds the trained CNN for a Keras dtype policy.

    Raises:
        FloatingPointError: If a loss is not finite.
    """

    def build(policy: str) -> ResNet9:
        dtype = keras.DTypePolicy(policy)
        return ResNet9(image_size, classes, mean=mean, std=std, dtype=dtype, name="teacher")

    augmentation_of_teacher, training_of_teacher = teacher_settings(augmentation, training)
    log.info("training the teacher, a CNN, for %d epochs before the ViT", training.teacher_epochs)
    trained = train(
        build,
        classes=classes,
        augmentation=augmentation_of_teacher,
        training=training_of_teacher,
        train_split=train_split,
        val_split=val_split,
        log_dir=log_dir,
        checkpoints=checkpoints,
    )
    return partial(_rebuild, build, trained.best.get_weights())


def _rebuild(build: Callable[[str], ResNet9], weights: list[np.ndarray], policy: str) -> ResNet9:
    teacher = build(policy)
    teacher.set_weights(weights)
    return teacher

"""Predictions for images by small ViTs that were not trained on them (cross-validation)."""

import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from sklearn.neighbors import NearestNeighbors

from trainer.checkpoint import Checkpoints
from trainer.input import Split, check_free
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.train import build_vit, train
from trainer.vit import ViT

log = logging.getLogger(__name__)

_BATCH = 64  # images of a training step, and images that are copied or classified at a time, in multiples
_NEIGHBOURS = 10
_MOST_COMPARED = 10_000  # training images of a fold among which neighbours are searched
_LARGEST_STEM = 64  # pixels; a convolutional stem of width 64 accepts no larger patches


class Recipe(NamedTuple):
    """Settings of a training."""

    model: ModelSettings
    augmentation: AugmentSettings
    training: TrainingSettings


class Predictions(NamedTuple):
    """Results of `predict_out_of_fold` for N images, in their order."""

    probabilities: np.ndarray  # float32 [N, classes]
    # float32 [N]: mean cosine distance of an image's features to those of its nearest training images, which is large
    # for an image that looks like no other
    distances: np.ndarray


def small_recipe(
    model: ModelSettings, augmentation: AugmentSettings, training: TrainingSettings, epochs: int, images: int
) -> Recipe:
    """Return the settings of a short training of a small ViT, which are those of the preset `cifar10-cpu`.

    Args:
        model: Settings that decide how an image becomes the input, and the size of its patches.
        augmentation: Settings that decide whether images are mirrored.
        training: Settings that decide the precision and the seed.
        epochs: Number of epochs.
        images: Number of training images, which may be too few for the usual batch.
    """
    patch = model.patch_size
    framing = model.model_dump(include={"image_size", "resize", "background", "patch_size"})
    return Recipe(
        ModelSettings(
            **framing,
            depth=4,
            width=64,
            heads=4,
            conv_stem=1 < patch <= _LARGEST_STEM and patch & (patch - 1) == 0,
            mimetic=True,
        ),
        AugmentSettings(flip=augmentation.flip, crop_padding=0, randaugment_ops=0, mixup=0, cutmix=0, erase=0),
        TrainingSettings(
            epochs=epochs,
            optimizer="muon",
            batch_size=max(2, min(_BATCH, images // 8 * 2)),
            learning_rate=1.5e-3,
            warmup_epochs=0.3,
            label_smoothing=0.0,
            ema_epochs=0.1,
            use_val=True,  # an epoch that was selected on the held-out images would depend on their labels
            precision=training.precision,
            seed=training.seed,
        ),
    )


def predict_out_of_fold(
    split: Split,
    folds: np.ndarray,
    classes: int,
    recipe: Recipe,
    mean: Sequence[float],
    std: Sequence[float],
    checkpoints: Path,
) -> Predictions:
    """Train a ViT for each fold on the images of the other folds, and classify the images of the fold with it.

    Args:
        split: The images and their labels.
        folds: Number of the fold of each image, from 0, int [N].
        classes: Number of classes.
        recipe: Settings of the trainings. If the augmentation mirrors images, each prediction is the mean of those for
            the image and its mirror image.
        mean: Mean of the pixels of each channel, in units of 0 to 255, [3].
        std: Standard deviation of the pixels of each channel, in units of 0 to 255, [3].
        checkpoints: Folder of the checkpoints of these trainings. Its name is a digest of all other arguments.

    Returns:
        The predictions.

    Raises:
        OSError: If TMPDIR has no room for the images of a fold and of the others.
    """
    sizes = np.bincount(folds)
    count, most, fewest = len(sizes), int(sizes.max()), int(sizes.min())
    copied = len(split) - fewest + most
    check_free(copied, copied * split.images[0].nbytes)
    probabilities = np.empty((len(split), classes), np.float32)
    distances = np.empty(len(split), np.float32)
    with tempfile.TemporaryFile() as training_file, tempfile.TemporaryFile() as held_out_file:
        training_room = _Room(training_file, split, len(split) - fewest)
        held_out_room = _Room(held_out_file, split, most)
        for fold in range(count):
            held_out, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            log.info("fold %d of %d", fold + 1, count)
            trained = train(
                partial(build_vit, recipe.model, classes, mean, std),
                classes=classes,
                augmentation=recipe.augmentation,
                training=recipe.training,
                train_split=training_room.fill(others),
                val_split=held_out_room.fill(held_out),
                log_dir=None,
                checkpoints=Checkpoints(checkpoints / f"fold-{fold}", others=count),
            )
            sample = np.random.default_rng(recipe.training.seed).permutation(others)[:_MOST_COMPARED]
            known, _ = _classify(trained.last, split, np.sort(sample), recipe.augmentation.flip)
            features, probabilities[held_out] = _classify(trained.last, split, held_out, recipe.augmentation.flip)
            neighbours = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(known)), metric="cosine").fit(known)
            distances[held_out] = neighbours.kneighbors(features)[0].mean(axis=1)
    return Predictions(probabilities, distances)


class _Room:
    """Copies of some images of a split in a file that is mapped into memory, because memory may not hold them.

    Each fold overwrites the images of the fold before. TensorFlow keeps the data sets of earlier trainings, and a file
    for each fold would take room on the disk for as long as these are mapped.

    Args:
        file: An empty file.
        split: The split.
        most: Largest number of images that are copied at a time.
    """

    def __init__(self, file: BinaryIO, split: Split, most: int) -> None:
        self._file, self._split = file, split
        self._images = np.memmap(file, np.uint8, "r+", shape=(most, *split.images.shape[1:]))

    def fill(self, rows: np.ndarray) -> Split:
        """Copy images, and return them with their labels. Images that were copied before are overwritten."""
        # Written rather than mapped: a full disk is then an OSError, and would otherwise kill the process.
        self._file.seek(0)
        for start in range(0, len(rows), _BATCH):
            self._file.write(np.ascontiguousarray(self._split.images[rows[start : start + _BATCH]]).data)
        self._file.flush()
        return Split(self._images[: len(rows)], self._split.labels[rows])


def _classify(vit: ViT, split: Split, rows: np.ndarray, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return features, float32 [n, width], and probabilities, float32 [n, classes], of some images of a split."""

    @tf.function(input_signature=[tf.TensorSpec((None, *split.images.shape[1:]), tf.uint8)], autograph=False)
    def answer(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = vit.features(images)
        probabilities = tf.nn.softmax(vit.head(features))
        if mirror:
            probabilities = (probabilities + tf.nn.softmax(vit(tf.reverse(images, [2]), training=False))) / 2
        return tf.cast(features, tf.float32), probabilities

    batches = [answer(split.images[rows[start : start + 4 * _BATCH]]) for start in range(0, len(rows), 4 * _BATCH)]
    features, probabilities = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return features, probabilities

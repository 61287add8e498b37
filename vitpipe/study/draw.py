"""Training sets of a study: the same number of images of each class. A smaller set is part of each larger one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.errors import DataRefused, SettingsError
from trainer.framing import Framing
from trainer.input import Split
from trainer.preprocessing import decode_batch
from vitpipe.inputs import read_examples

_IMAGES = 1024  # images decoded in one call


def read_split(span: Path, split: str, framing: Framing, progress: Callable[[int], None] = lambda read: None) -> Split:
    """Read and decode a split of a span.

    Args:
        span: the folder of the span.
        split: "train", "val" or "test".
        framing: choices by which an image becomes a square of pixels.
        progress: called with the number of images decoded so far.

    Returns:
        The images and labels, sorted by the ids of the examples.

    Raises:
        DataRefused: if the split is empty or damaged, or an image does not decode.
    """
    examples = sorted(read_examples(span, split), key=lambda example: example.id)
    if not examples:
        raise DataRefused(f"{span} has no {split} images: prepare it with some, or name another span")
    images = np.empty((len(examples), framing.size, framing.size, 3), "uint8")
    decode = tf.function(lambda encoded: decode_batch(encoded, framing))
    for start in range(0, len(examples), _IMAGES):
        rows = examples[start : start + _IMAGES]
        pixels, valid = decode(tf.constant([row.image for row in rows]))
        if not all(valid):
            name = rows[int(np.argmin(valid))].id.decode("utf-8", "backslashreplace")
            raise DataRefused(f"{span}: the image of {name} does not decode; `vitpipe data verify {span}` says more")
        images[start : start + len(rows)] = pixels
        progress(start + len(rows))
    return Split(images, np.array([example.label for example in examples]))


def largest_size(split: Split, classes: int) -> int:
    """Return the number of images of the rarest class, which is the largest size that `draw` accepts.

    Args:
        split: the images to draw from.
        classes: number of classes.
    """
    return int(np.bincount(split.labels, minlength=classes).min())


def draw(split: Split, classes: int, size: int, seed: int) -> Split:
    """Draw `size` images of each class without replacement. With one seed, a smaller draw is part of a larger one.

    Args:
        split: the images to draw from.
        classes: number of classes.
        size: number of images of each class.
        seed: seed of the random draw, which depends on nothing else.

    Returns:
        The drawn images and labels, in the order of `split`.

    Raises:
        SettingsError: if a class has fewer images.
    """
    order = np.random.default_rng(seed).permutation(len(split))
    drawn = []
    for label in range(classes):
        of_class = order[split.labels[order] == label]
        if len(of_class) < size:
            raise SettingsError(
                f"size {size}: class {label} has only {len(of_class)} training images. Choose a smaller size, or null "
                "for the number of images of the rarest class"
            )
        drawn.append(of_class[:size])
    rows = np.sort(np.concatenate(drawn))
    return Split(split.images[rows], split.labels[rows])

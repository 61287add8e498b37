"""Training sets of a study: the same number of images of each class, and each set part of the larger ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.errors import DataRefused, SettingsError
from trainer.input import Split
from trainer.preprocessing import decode_batch
from vitpipe.inputs import examples

_IMAGES = 1024  # a call


def read(span: Path, split: str, size: int, progress: Callable[[int], None] = lambda read: None) -> Split:
    """A split of a span, decoded to `size` pixels a side, in the order of its ids.

    Raises DataRefused for what is damaged or does not decode.
    """
    found = sorted(examples(span, split), key=lambda one: one.id)
    if not found:
        raise DataRefused(f"{span} has no {split} images: prepare it with some, or name another span")
    images = np.empty((len(found), size, size, 3), "uint8")
    decode = tf.function(lambda encoded: decode_batch(encoded, size))
    for start in range(0, len(found), _IMAGES):
        rows = found[start : start + _IMAGES]
        pixels, valid = decode(tf.constant([one.image for one in rows]))
        if not all(valid):
            name = rows[int(np.argmin(valid))].id.decode("utf-8", "backslashreplace")
            raise DataRefused(f"{span}: the image of {name} does not decode; `vitpipe data verify {span}` says more")
        images[start : start + len(rows)] = pixels
        progress(start + len(rows))
    return Split(images, np.array([one.label for one in found]))


def whole_size(split: Split, classes: int) -> int:
    """How many images of each class there are: as many as of the rarest."""
    return int(np.bincount(split.labels, minlength=classes).min())


def draw(split: Split, classes: int, size: int, seed: int) -> Split:
    """`size` images of each class, drawn without replacement by the seed alone.

    With one seed a smaller draw is part of a larger one. Raises SettingsError when a class has fewer images.
    """
    order = np.random.default_rng(seed).permutation(len(split))
    taken = []
    for label in range(classes):
        of_class = order[split.labels[order] == label]
        if len(of_class) < size:
            raise SettingsError(
                f"size {size}: class {label} has {len(of_class)} training images: take a smaller size, or null for "
                "as many as the rarest class has"
            )
        taken.append(of_class[:size])
    rows = np.sort(np.concatenate(taken))
    return Split(split.images[rows], split.labels[rows])

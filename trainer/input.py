"""Transformed examples to training batches."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.examples import ID, IMAGE, LABEL


@dataclass(frozen=True)
class Split:
    """A split in memory: images uint8 [N, size, size, 3], labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def load(patterns: list[str], size: int) -> Split:
    """Read a whole split of transformed examples into memory, in the order of their ids.

    Beam writes records in no fixed order; the ids restore one, so that an exact repeat is possible.
    """
    features = {
        IMAGE: tf.io.FixedLenFeature([], tf.string),
        LABEL: tf.io.FixedLenFeature([], tf.int64),
        ID: tf.io.FixedLenFeature([], tf.string),
    }

    def parse(records):
        batch = tf.io.parse_example(records, features)
        pixels = tf.ensure_shape(tf.io.decode_raw(batch[IMAGE], tf.uint8), (None, size * size * 3))
        return tf.reshape(pixels, (-1, size, size, 3)), batch[LABEL], batch[ID]

    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    batches = list(
        tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=2)
        .batch(1024)
        .map(parse, num_parallel_calls=2)
        .as_numpy_iterator()
    )
    if not batches:
        raise ValueError(f"no examples in {', '.join(patterns)}")
    images, labels, ids = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    order = np.argsort(ids)
    return Split(images[order], labels[order])


def training_batches(split: Split, classes: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """(images uint8, one-hot labels float32) in whole batches, shuffled over the whole split, anew each epoch."""
    rows = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
    rows = rows.shuffle(len(split), seed=seed, reshuffle_each_iteration=True)
    return _batches(rows, classes, batch_size, drop_remainder=True)


def evaluation_batches(split: Split, classes: int, batch_size: int) -> tf.data.Dataset:
    """The same in order, the last batch as short as it comes."""
    rows = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
    return _batches(rows, classes, batch_size, drop_remainder=False)


def _batches(rows, classes, batch_size, drop_remainder):
    batches = rows.batch(batch_size, drop_remainder=drop_remainder)
    return batches.map(lambda images, labels: (images, tf.one_hot(labels, classes))).prefetch(tf.data.AUTOTUNE)

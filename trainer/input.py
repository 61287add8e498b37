"""Transformed examples to batches of pixels, labels and the random numbers that augment them."""

import errno
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from itertools import count

import numpy as np
import tensorflow as tf

from trainer.examples import ID, IMAGE, LABEL

NOBODY = -1  # the label of a row that only fills up a batch


@dataclass(frozen=True)
class Split:
    """A decoded split: images uint8 [N, size, size, 3], in memory or mapped from a file, and labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """sha256 of the labels and pixels."""
        digest = hashlib.sha256(self.labels.tobytes())
        for start in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        return digest.hexdigest()


def load(patterns: list[str], size: int, memory_gib: float, leave_out: Set[bytes] = frozenset()) -> Split:
    """Decode a whole split once, in the order of its ids, without those in `leave_out`.

    Beam writes records in no fixed order; the ids restore one, so that an exact repeat is possible. Above `memory_gib`
    the pixels stay in a temporary file (in TMPDIR), mapped into memory, and the page cache keeps what fits.
    """
    features = {
        IMAGE: tf.io.FixedLenFeature([], tf.string),
        LABEL: tf.io.FixedLenFeature([], tf.int64),
        ID: tf.io.FixedLenFeature([], tf.string),
    }

    def parse(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        batch = tf.io.parse_example(records, features)
        pixels = tf.ensure_shape(tf.io.decode_raw(batch[IMAGE], tf.uint8), (None, size * size * 3))
        return pixels, batch[LABEL], batch[ID]

    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    batches = (
        tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=2)
        .batch(1024)
        .map(parse, num_parallel_calls=2)
        .prefetch(2)
    )
    labels, ids = [], []
    try:
        with tempfile.TemporaryFile() as spool:
            for pixels, label, identity in batches.as_numpy_iterator():
                spool.write(pixels.data)
                labels.append(label)
                ids.append(identity)
            if not labels:
                raise ValueError(f"no examples in {', '.join(patterns)}")
            spool.flush()
            every_id = np.concatenate(ids)
            order = np.argsort(every_id)
            unordered = np.memmap(spool, np.uint8, "r", shape=(len(order), size, size, 3))
            order = order[[id not in leave_out for id in every_id[order]]]
            shape = (len(order), size, size, 3)
            if len(order) * unordered[0].nbytes <= memory_gib * 2**30:
                images = unordered[order]
            else:
                with tempfile.TemporaryFile() as file:  # the map keeps what is in it
                    for start in range(0, len(order), 4096):
                        file.write(unordered[order[start : start + 4096]].data)
                    file.flush()
                    images = np.memmap(file, np.uint8, "r", shape=shape)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            error.errno,
            f"no space left in {tempfile.gettempdir()} for the pixels of {', '.join(patterns)}: set TMPDIR to a folder "
            f"with room for them, twice over where they are more than training.memory_gib ({memory_gib:g} GiB)",
        ) from None
    return Split(images, np.concatenate(labels)[order])


@dataclass(frozen=True)
class Share:
    """The part of each batch that one worker computes: `replicas` parts of `parts`, from the one numbered `first`."""

    first: int
    replicas: int
    parts: int

    def rows(self, batch_size: int) -> list[slice]:
        size = batch_size // self.parts
        return [slice(part * size, (part + 1) * size) for part in range(self.first, self.first + self.replicas)]


def training_batches(
    split: Split, batch_size: int, draws: int, seed: int, first_epoch: int, share: Share
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Without end: (images uint8 [n, size, size, 3], labels int32 [n], uniform float32 [n, draws]), n rows a replica.

    Each epoch is shuffled over the whole split and drops the rows that fill no batch. What comes depends on the seed,
    the epoch and the step alone: not on where training started, nor on how many share the batch.
    """
    for epoch in count(first_epoch):
        order = np.random.default_rng((seed, epoch, 0)).permutation(len(split))
        for step in range(len(split) // batch_size):
            batch = order[step * batch_size : (step + 1) * batch_size]
            uniform = np.random.default_rng((seed, epoch, step + 1)).random((batch_size, draws), np.float32)
            for rows in share.rows(batch_size):
                yield split.images[batch[rows]], split.labels[batch[rows]].astype(np.int32), uniform[rows]


def evaluation_batches(split: Split, batch_size: int, share: Share) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Once, in order: (images, labels) as above. Rows labelled NOBODY fill the last batch up to the size of all."""
    for start in range(0, len(split), batch_size):
        images, labels = split.images[start : start + batch_size], split.labels[start : start + batch_size]
        missing = batch_size - len(labels)
        images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        labels = np.pad(labels, (0, missing), constant_values=NOBODY).astype(np.int32)
        for rows in share.rows(batch_size):
            yield images[rows], labels[rows]


def dataset(
    batches: Callable[[], Iterator[tuple[np.ndarray, ...]]], split: Split, rows: int, draws: int = 0
) -> tf.data.Dataset:
    """The generator function `batches` as a dataset, made ahead of the step that takes from it."""
    signature: list[tf.TensorSpec] = [
        tf.TensorSpec((rows, *split.images.shape[1:]), tf.uint8),
        tf.TensorSpec((rows,), tf.int32),
    ]
    if draws:
        signature.append(tf.TensorSpec((rows, draws), tf.float32))
    return tf.data.Dataset.from_generator(batches, output_signature=tuple(signature)).prefetch(4)

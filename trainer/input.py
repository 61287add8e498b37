"""Input of a training: reads transformed examples, and makes batches of pixels, labels and random numbers."""

import errno
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from itertools import count

import numpy as np
import tensorflow as tf

from trainer.examples import ID, IMAGE, LABEL

PADDING_LABEL = -1  # label of a row that only fills up a batch


@dataclass(frozen=True)
class Split:
    """A decoded split: images, uint8 [N, size, size, 3], in memory or mapped from a file, and labels, int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Return the sha256 of the labels and pixels."""
        digest = hashlib.sha256(self.labels.tobytes())
        for start in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        return digest.hexdigest()


def load(patterns: list[str], size: int, memory_gib: float, leave_out: Set[bytes] = frozenset()) -> Split:
    """Read all transformed examples of a split, sorted by id.

    Beam writes records in no fixed order. Sorting by id makes an exact repeat of a training possible.

    Args:
        patterns: Glob patterns of the gzipped TFRecord files.
        size: Pixels on a side of an image.
        memory_gib: GiB of pixels to hold in memory. The pixels of a larger split stay in a temporary file in TMPDIR,
            which is mapped into memory.
        leave_out: Ids of examples to leave out.

    Returns:
        The split.

    Raises:
        ValueError: If there are no examples.
        OSError: If TMPDIR is full, or a file cannot be read.
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
                with tempfile.TemporaryFile() as file:  # the memory map keeps its content after it is closed
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
            f"with room for them, or with twice the room if they exceed training.memory_gib ({memory_gib:g} GiB)",
        ) from None
    return Split(images, np.concatenate(labels)[order])


@dataclass(frozen=True)
class Share:
    """Part of each batch that one worker computes.

    A batch is split into equal parts, one for each replica of all workers.
    """

    first: int  # index of this worker's first part
    replicas: int  # number of this worker's parts
    parts: int  # number of all parts

    def rows(self, batch_size: int) -> list[slice]:
        """Return the rows of a batch that belong to each replica of this worker."""
        size = batch_size // self.parts
        return [slice(part * size, (part + 1) * size) for part in range(self.first, self.first + self.replicas)]


def training_batches(
    split: Split, batch_size: int, draws: int, seed: int, first_epoch: int, share: Share
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield training batches without end, one batch for each replica of this worker in turn.

    Each epoch shuffles the whole split, and drops the last rows if they do not fill a batch. The batch of a step
    depends on the seed, the epoch and the step alone. It does not depend on the epoch that training continues from, nor
    on the number of replicas.

    Args:
        split: The images.
        batch_size: Rows of a whole batch, over all replicas.
        draws: Number of random numbers for each row.
        seed: Seed of the order and of the random numbers.
        first_epoch: Epoch to start from.
        share: This worker's part of each batch.

    Yields:
        Images, uint8 [n, size, size, 3], labels, int32 [n], and uniform random numbers in [0, 1), float32 [n, draws],
        where n is the number of rows of one replica.
    """
    for epoch in count(first_epoch):
        order = np.random.default_rng((seed, epoch, 0)).permutation(len(split))
        for step in range(len(split) // batch_size):
            batch = order[step * batch_size : (step + 1) * batch_size]
            uniform = np.random.default_rng((seed, epoch, step + 1)).random((batch_size, draws), np.float32)
            for rows in share.rows(batch_size):
                yield split.images[batch[rows]], split.labels[batch[rows]].astype(np.int32), uniform[rows]


def evaluation_batches(split: Split, batch_size: int, share: Share) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the whole split once, in order, one batch for each replica of this worker in turn.

    The last batch is filled up with rows labelled PADDING_LABEL.

    Args:
        split: The images.
        batch_size: Rows of a whole batch, over all replicas.
        share: This worker's part of each batch.

    Yields:
        Images, uint8 [n, size, size, 3], and labels, int32 [n], where n is the number of rows of one replica.
    """
    for start in range(0, len(split), batch_size):
        images, labels = split.images[start : start + batch_size], split.labels[start : start + batch_size]
        missing = batch_size - len(labels)
        images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        labels = np.pad(labels, (0, missing), constant_values=PADDING_LABEL).astype(np.int32)
        for rows in share.rows(batch_size):
            yield images[rows], labels[rows]


def dataset(
    batches: Callable[[], Iterator[tuple[np.ndarray, ...]]], split: Split, rows: int, draws: int = 0
) -> tf.data.Dataset:
    """Wrap a generator function in a `tf.data.Dataset` that prepares batches ahead of time.

    Args:
        batches: Function that returns an iterator of batches, such as `training_batches`.
        split: The split, which gives the shape of an image.
        rows: Rows of each batch.
        draws: Number of random numbers for each row. 0: the batches contain none.

    Returns:
        The dataset.
    """
    signature: list[tf.TensorSpec] = [
        tf.TensorSpec((rows, *split.images.shape[1:]), tf.uint8),
        tf.TensorSpec((rows,), tf.int32),
    ]
    if draws:
        signature.append(tf.TensorSpec((rows, draws), tf.float32))
    return tf.data.Dataset.from_generator(batches, output_signature=tuple(signature)).prefetch(4)

"""Input of a training: decodes raw examples once, and makes batches of pixels, labels and random numbers."""

import errno
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from itertools import count

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from trainer.examples import ID, IMAGE, LABEL
from trainer.framing import Framing
from trainer.preprocessing import PIXELS, decode_batch

log = logging.getLogger(__name__)

PADDING_LABEL = -1  # label of a row that only fills up a batch

_RAW = {IMAGE: tf.string, LABEL: tf.int64, ID: tf.string}  # types of the features of a raw example
_DECODED_IMAGES = 64  # images that a thread decodes at a time
_REPORT_SECONDS = 5


@dataclass(frozen=True)
class Split:
    """A decoded split: images, uint8 [N, size, size, 3], often mapped from a file, and labels, int64 [N]."""

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


Decode = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""Function from serialized raw examples, string [N], to pixels, uint8 [N, size * size * 3], labels and ids."""


def decode_by_graph(transform: tft.TFTransformOutput) -> Decode:
    """Return a function that applies the graph which Transform made from `trainer.preprocessing.preprocessing_fn`."""
    graph, features = transform.transform_features_layer(), transform.raw_feature_spec()

    def decode(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        batch = graph(tf.io.parse_example(records, features))
        return tf.io.decode_raw(batch[PIXELS], tf.uint8), batch[LABEL], batch[ID]

    return decode


def decode_by_framing(framing: Framing) -> Decode:
    """Return a function that decodes images as serving does, where Transform's graph has another size."""
    features = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in _RAW.items()}

    def decode(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        batch = tf.io.parse_example(records, features)
        images, valid = decode_batch(batch[IMAGE], framing)
        with tf.control_dependencies([tf.debugging.assert_equal(valid, True)]):
            return tf.reshape(images, (-1, framing.size**2 * 3)), batch[LABEL], batch[ID]

    return decode


def load(patterns: list[str], decode: Decode, size: int, leave_out: Set[bytes] = frozenset()) -> Split:
    """Decode all images of a split, in the order of the files, to a temporary file in TMPDIR.

    The file is mapped into memory, so the operating system keeps as much of it in memory as fits.

    Args:
        patterns: Glob patterns of the TFRecord files of raw examples.
        decode: Function that decodes a batch, such as `decode_by_graph`.
        size: Pixels on a side of the decoded images.
        leave_out: Ids of examples to leave out.

    Returns:
        The split.

    Raises:
        ValueError: If there are no examples, all are left out, or a file is damaged.
        OSError: If TMPDIR has no room for the pixels, or a file cannot be read.
        InvalidArgumentError: If an image does not decode. The data gate stops a run with such images earlier.
    """
    files = _find(patterns)
    total = check_room([(patterns, size)])
    log.info("decoding %s images to %.2f GiB in %s", f"{total:,}", total * size**2 * 3 / 2**30, tempfile.gettempdir())
    batches = tf.data.TFRecordDataset(files).batch(_DECODED_IMAGES).map(decode, num_parallel_calls=os.cpu_count())
    labels, done, reported = [], 0, time.monotonic()
    try:
        with tempfile.TemporaryFile() as file:  # the map keeps its content after it is closed
            for flat, label, ids in batches.as_numpy_iterator():
                kept = np.array([id not in leave_out for id in ids], bool)
                file.write(flat[kept].data)
                labels.append(label[kept])
                done += len(label)
                if time.monotonic() - reported > _REPORT_SECONDS:
                    log.info("decoded %s of %s images", f"{done:,}", f"{total:,}")
                    reported = time.monotonic()
            file.flush()
            every_label = np.concatenate(labels)
            if not len(every_label):
                raise ValueError(f"all {total:,} examples of {', '.join(patterns)} are left out: use other data")
            # A copy on write, because TensorFlow accepts no memory that it must not write to. It does not write to it.
            images = np.memmap(file, np.uint8, "c", shape=(len(every_label), size, size, 3))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            check_room([(patterns, size)])  # names what is needed, if it is still missing
        raise
    return Split(images, every_label)


def check_room(splits: list[tuple[list[str], int]]) -> int:
    """Check that the decoded images of some splits fit into TMPDIR.

    Args:
        splits: Glob patterns and size of each split, as for `load`.

    Returns:
        Number of images.

    Raises:
        ValueError: If a split has no examples, or a file is damaged.
        OSError: If there is too little room.
    """
    images = needed = 0
    for patterns, size in splits:
        found = sum(map(_count_records, _find(patterns)))
        if not found:
            raise ValueError(f"no examples in {', '.join(patterns)}")
        images, needed = images + found, needed + found * size**2 * 3
    check_free(images, needed)
    return images


def check_free(images: int, needed: int) -> None:
    """Check that TMPDIR has room for decoded images.

    Args:
        images: Number of the images.
        needed: Size of their pixels in bytes.

    Raises:
        OSError: If there is too little room.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the pixels of {images:,} images take {needed / 2**30:.2f} GiB, and {folder} has {free / 2**30:.2f} "
            "GiB left: set TMPDIR to a folder with more room",
        )


def _find(patterns: list[str]) -> list[str]:
    return sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))


def _count_records(path: str) -> int:
    """Return the number of records of a TFRecord file. Only their lengths are read."""
    count = at = 0
    with tf.io.gfile.GFile(path, "rb") as file:
        size = file.size()
        while at < size:
            file.seek(at)
            start = file.read(8)
            at += 16 + int.from_bytes(start, "little")  # with the checksums of the length and of the data
            count += 1
    if at != size:
        raise ValueError(f"{path} ends within a record: restore it, or run again without the cache")
    return count


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
        Indices of the images, int64 [n], labels, int32 [n], and uniform random numbers in [0, 1), float32 [n, draws],
        where n is the number of rows of one replica.
    """
    for epoch in count(first_epoch):
        order = np.random.default_rng((seed, epoch, 0)).permutation(len(split))
        for step in range(len(split) // batch_size):
            batch = order[step * batch_size : (step + 1) * batch_size]
            uniform = np.random.default_rng((seed, epoch, step + 1)).random((batch_size, draws), np.float32)
            for rows in share.rows(batch_size):
                yield batch[rows], split.labels[batch[rows]].astype(np.int32), uniform[rows]


def evaluation_batches(split: Split, batch_size: int, share: Share) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the whole split once, in order, one batch for each replica of this worker in turn.

    The last batch is filled up with images of the split that are labelled PADDING_LABEL.

    Args:
        split: The images.
        batch_size: Rows of a whole batch, over all replicas.
        share: This worker's part of each batch.

    Yields:
        Indices of the images, int64 [n], and labels, int32 [n], where n is the number of rows of one replica.
    """
    for start in range(0, len(split), batch_size):
        batch = np.arange(start, start + batch_size)
        labels = np.where(batch < len(split), split.labels[batch % len(split)], PADDING_LABEL).astype(np.int32)
        for rows in share.rows(batch_size):
            yield batch[rows] % len(split), labels[rows]


def dataset(
    batches: Callable[[], Iterator[tuple[np.ndarray, ...]]], split: Split, rows: int, draws: int = 0
) -> tf.data.Dataset:
    """Wrap a generator function in a `tf.data.Dataset` that prepares batches ahead of time.

    TensorFlow copies the images of a batch from the split, on several cores and while Python runs.

    Args:
        batches: Function that returns an iterator of batches, such as `training_batches`.
        split: The split, which holds the images.
        rows: Rows of each batch.
        draws: Number of random numbers for each row. 0: the batches contain none.

    Returns:
        The dataset, whose batches have images, uint8 [rows, size, size, 3], in place of indices.
    """
    signature: list[tf.TensorSpec] = [tf.TensorSpec((rows,), tf.int64), tf.TensorSpec((rows,), tf.int32)]
    if draws:
        signature.append(tf.TensorSpec((rows, draws), tf.float32))
    with tf.device("/CPU:0"):
        images = _as_tensor(split.images)
    chosen = tf.data.Dataset.from_generator(batches, output_signature=tuple(signature)).prefetch(4)
    return chosen.map(lambda index, *others: (tf.gather(images, index), *others), num_parallel_calls=2).prefetch(4)


def _as_tensor(array: np.ndarray) -> tf.Tensor:
    """Return an array as a tensor, which shares the memory of a mapped file. Other arrays are copied.

    TensorFlow can only share memory that it may write to and that begins at a multiple of 64 bytes, as that of a mapped
    file does.
    """
    if isinstance(array, np.memmap):
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)

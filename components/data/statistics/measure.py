"""Measurement of images: a row for each image, from which all statistics are computed."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import pyarrow as pa
import tensorflow as tf

from components.data.ingest import tfrecord
from components.data.ingest.images import UNDECODABLE, BadImage, open_header, remarks
from components.data.statistics.perceptual import SIDE, phash, stack_thumbnails, thumbnail
from components.data.statistics.pixels import PixelMeasures, grey
from trainer.framing import Framing
from trainer.preprocessing import decode_batch

VERSIONS = (tf.__version__, PIL.__version__, np.__version__)  # of the libraries that decide the measured values
_CORES = os.cpu_count() or 1
_CHUNK_IMAGES, CHUNK_BYTES, _CHUNK_PIXELS = 512, 8 * 2**20, 2**20  # limits of what a core decodes at a time

# Table of images.
ROW = pa.schema(
    {
        "split": pa.string(),
        "id": pa.binary(),
        "label": pa.int64(),
        "shard": pa.string(),  # name of its file in the folder of the split
        "offset": pa.int64(),  # of its record in the shard, in bytes
        "reason": pa.string(),  # why the image cannot be used, or empty
        "bytes": pa.int64(),
        # The following columns may be null if the image cannot be used.
        "format": pa.string(),  # format and mode as Pillow names them, for example JPEG RGB
        "width": pa.int32(),
        "height": pa.int32(),
        # The following columns are measured on the pixels that the model gets.
        "digest": pa.binary(16),  # digest of the pixels
        "hash": pa.uint64(),  # perceptual hash
        "thumbnail": pa.binary(SIDE * SIDE),  # uint8 grey values
        "remarks": pa.list_(pa.string()),  # keys of `components.data.ingest.images.REMARKS`
        "mean": pa.list_(pa.float64()),  # of red, green and blue
        "mean_square": pa.list_(pa.float64()),  # of red, green and blue
        "brightness": pa.float64(),  # mean of the luma, 0 to 255
        "sharpness": pa.float64(),  # variance of the luma's Laplacian
    }
)


def measure_shard(source: tuple[str, str], framing: Framing) -> Iterator[pa.Table]:
    """Measure the images of one shard of raw examples.

    Args:
        source: the split and the path of the shard.
        framing: choices by which an image becomes the model's input. The pixels of the input are measured.

    Yields:
        Tables with a row for each image.
    """
    split, path = source
    running: deque[Future[pa.Table]] = deque()
    for chunk in _chunks(tfrecord.read_places(Path(path)), framing):
        running.append(_threads().submit(measure_images, split, Path(path).name, framing, chunk))
        if len(running) > _CORES:  # one chunk more than cores, so that no core waits for the next
            yield running.popleft().result()
    for future in running:
        yield future.result()


def most_images(framing: Framing) -> int:
    """Return the number of images that `measure_images` should measure at a time."""
    return min(_CHUNK_IMAGES, 1 + _CHUNK_PIXELS // framing.size**2)


def _chunks(
    examples: Iterable[tuple[int, tfrecord.RawExample]], framing: Framing
) -> Iterator[list[tuple[int, tfrecord.RawExample]]]:
    max_images = most_images(framing)
    chunk: list[tuple[int, tfrecord.RawExample]] = []
    size = 0
    for offset, example in examples:
        chunk.append((offset, example))
        size += len(example.image)
        if len(chunk) == max_images or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def measure_images(
    split: str, shard: str, framing: Framing, chunk: Sequence[tuple[int, tfrecord.RawExample]]
) -> pa.Table:
    """Measure some images, which must fit into memory together with their pixels.

    Args:
        split: the split that the rows name.
        shard: name of the file that the rows name.
        framing: choices by which an image becomes the model's input.
        chunk: at least one example, each with its offset in the file.

    Returns:
        A table with the schema ROW and a row for each image.
    """
    offsets, examples = zip(*chunk, strict=True)
    images = [example.image for example in examples]
    encoded = tf.constant(images)
    pixels, valid = (tensor.numpy() for tensor in _decoder(framing)(encoded))
    headers = [_inspect(image) for image in images]
    measures = PixelMeasures.of(pixels)
    greys = measures.grey
    if framing.resize == "pad":  # pictures with equal bars would seem nearly equal
        greys = grey(_decoder(replace(framing, size=SIDE, resize="stretch"))(encoded)[0].numpy())
    thumbnails = [thumbnail(image).tobytes() for image in greys]
    reasons = [
        header.reason or ("" if is_valid else UNDECODABLE) for header, is_valid in zip(headers, valid, strict=True)
    ]
    bad = np.array([bool(reason) for reason in reasons])
    marks = [
        list(remarks(image, low, high)) for image, low, high in zip(images, measures.low, measures.high, strict=True)
    ]
    columns: dict[str, Any] = {
        "split": [split] * len(images),
        "id": [example.id for example in examples],
        "label": [example.label for example in examples],
        "shard": [shard] * len(images),
        "offset": offsets,
        "reason": reasons,
        "bytes": [len(image) for image in images],
        "format": [header.format for header in headers],
        "width": [header.width for header in headers],
        "height": [header.height for header in headers],
    }
    measured = {
        "digest": [hashlib.blake2b(image.data, digest_size=16).digest() for image in pixels],
        "hash": phash(stack_thumbnails(thumbnails)),
        "thumbnail": thumbnails,
        "remarks": marks,
        "mean": list(measures.mean),
        "mean_square": list(measures.mean_square),
        "brightness": measures.brightness,
        "sharpness": measures.sharpness,
    }
    arrays = [pa.array(values, ROW.field(name).type) for name, values in columns.items()]
    arrays += [pa.array(values, ROW.field(name).type, mask=bad) for name, values in measured.items()]
    return pa.table(arrays, schema=ROW)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_CORES, "measure")


class _Header(NamedTuple):
    """Facts from the header of an image, or the reason why the image cannot be used."""

    reason: str  # why the image cannot be used, or empty
    format: str | None = None
    width: int | None = None
    height: int | None = None


def _inspect(image: bytes) -> _Header:
    try:
        header = open_header(image)
    except BadImage as error:
        return _Header(str(error))
    return _Header("", f"{header.format} {header.mode}", header.width, header.height)


@cache
def _decoder(framing: Framing) -> tf.types.experimental.PolymorphicFunction:
    """Return a function that decodes a batch by the model's preprocessing."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def decode(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, valid = decode_batch(encoded, framing)
        return pixels, valid

    return decode

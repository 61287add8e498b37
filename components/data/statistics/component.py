"""ImageStatistics component, which measures the images of a span and finds equal and nearly equal images."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import apache_beam as beam
import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf
from apache_beam.io.parquetio import WriteToParquet
from tfx import types
from tfx.components.example_gen.utils import SPAN_PROPERTY_NAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from components import artifacts
from components.data.ingest import tfrecord
from components.data.ingest.images import UNDECODABLE, BadImage, open_header, remarks
from components.data.statistics.conflicts import CONFLICTS_SCHEMA
from components.data.statistics.exhibits import EXHIBITS_SCHEMA
from components.data.statistics.figures import FIGURES
from components.data.statistics.findings import search
from components.data.statistics.leaks import TWINS_SCHEMA
from components.data.statistics.perceptual import SIDE, phash, stack_thumbnails, thumbnail
from components.data.statistics.pixels import PixelMeasures, grey
from components.data.statistics.shard_tables import write_table
from components.data.statistics.summary import total
from trainer.examples import class_names
from trainer.framing import Framing
from trainer.preprocessing import decode_batch

# Files of an ImageStatistics artifact.
TABLE = "images"  # a folder of Parquet files with a row for each image
EXHIBITS = "exhibits.parquet"  # a folder of Parquet files with the rows of `exhibits.EXHIBITS_SCHEMA`
TWINS = "twins.parquet"  # a folder of Parquet files with the rows of `leaks.TWINS_SCHEMA`
CONFLICTS = "conflicts.parquet"  # a folder of Parquet files with the rows of `conflicts.CONFLICTS_SCHEMA`

_VERSIONS = (tf.__version__, PIL.__version__, np.__version__)  # of the libraries that decide the measured values
_CORES = os.cpu_count() or 1
_CHUNK_IMAGES, _CHUNK_BYTES, _CHUNK_PIXELS = 512, 8 * 2**20, 2**20  # limits of what a core decodes at a time

_ROW = pa.schema(
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
        running.append(_threads().submit(_measure, split, Path(path).name, framing, chunk))
        if len(running) > _CORES:  # one chunk more than cores, so that no core waits for the next
            yield running.popleft().result()
    for future in running:
        yield future.result()


def _chunks(
    examples: Iterable[tuple[int, tfrecord.RawExample]], framing: Framing
) -> Iterator[list[tuple[int, tfrecord.RawExample]]]:
    max_images = min(_CHUNK_IMAGES, 1 + _CHUNK_PIXELS // framing.size**2)
    chunk: list[tuple[int, tfrecord.RawExample]] = []
    size = 0
    for offset, example in examples:
        chunk.append((offset, example))
        size += len(example.image)
        if len(chunk) == max_images or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _measure(split: str, shard: str, framing: Framing, chunk: list[tuple[int, tfrecord.RawExample]]) -> pa.Table:
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
    arrays = [pa.array(values, _ROW.field(name).type) for name, values in columns.items()]
    arrays += [pa.array(values, _ROW.field(name).type, mask=bad) for name, values in measured.items()]
    return pa.table(arrays, schema=_ROW)


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


def summarize(pipeline: beam.Pipeline, folder: Path, names: list[str], context: dict[str, Any]) -> None:
    """Write the statistics, the findings and the exhibits of a table of images.

    Args:
        pipeline: the pipeline to extend.
        folder: the folder of an ImageStatistics artifact, with the table.
        names: class names in index order.
        context: the other fields of ImageFigures: span, gate_span, image_size, resize and background.
    """
    files = pipeline | beam.Create([str(file) for file in sorted((folder / TABLE).glob("part-*.parquet"))])
    found = search(files)
    summary = total(files, found, names, context)
    _ = summary.figures | beam.Map((folder / FIGURES).write_text, encoding="utf-8")
    for name, rows, schema in (
        (TWINS, found.twins, TWINS_SCHEMA),
        (CONFLICTS, found.conflicts, CONFLICTS_SCHEMA),
        (EXHIBITS, summary.exhibits, EXHIBITS_SCHEMA),
    ):
        _ = rows | f"Write {name}" >> WriteToParquet(str(folder / name / "part"), schema, file_name_suffix=".parquet")


class Executor(base_beam_executor.BaseBeamExecutor):
    """Executor that measures every image in a Beam job, and summarizes the table of images in another."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the table of images, the twins, the conflicts, the exhibits and the statistics.

        Args:
            input_dict: `examples`, `test_examples` and `schema`.
            output_dict: `statistics`.
            exec_properties: `framing`, `measured`, and the digest of the code, if it is known.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        framing = Framing.of(json.loads(exec_properties["framing"]))
        [examples], [test_examples] = input_dict["examples"], input_dict["test_examples"]
        statistics = artifact_utils.get_single_instance(output_dict["statistics"])
        folder = Path(statistics.uri)
        shards = [
            (split, str(shard))
            for artifact in (examples, test_examples)
            for split in artifact_utils.decode_split_names(artifact.split_names)
            for shard in sorted(Path(artifact_utils.get_split_uri([artifact], split)).iterdir())
        ]
        kept = Path(exec_properties["measured"])
        for each in kept, folder / TABLE:
            each.mkdir(parents=True, exist_ok=True)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create(shards)
                | beam.Reshuffle()
                | beam.Map(
                    write_table,
                    partial(measure_shard, framing=framing),
                    _ROW,
                    "".join([exec_properties["framing"], exec_properties.get("digest", ""), *_VERSIONS]),
                    str(kept),
                    str(folder / TABLE),
                )
            )
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        names = class_names(io_utils.SchemaReader().read(schema_file))
        span, gate_span = (
            artifact.get_int_custom_property(SPAN_PROPERTY_NAME) for artifact in (examples, test_examples)
        )
        context = {
            "span": span,
            "gate_span": gate_span,
            "image_size": framing.size,
            "resize": framing.resize,
            "background": framing.background,
        }
        with self._make_beam_pipeline() as pipeline:
            summarize(pipeline, folder, names, context)
        statistics.span = span


class ImageStatisticsSpec(ComponentSpec):
    """Inputs, output and parameter of ImageStatistics."""

    PARAMETERS: ClassVar = {"framing": ExecutionParameter(type=str), "measured": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "test_examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS: ClassVar = {"statistics": ChannelParameter(type=artifacts.ImageStatisticsArtifact)}


class ImageStatistics(base_beam_component.BaseBeamComponent):
    """Component that measures every image of a span and of the gate's test set.

    Args:
        examples: raw examples of train and val.
        test_examples: raw examples of the gate span's test split.
        schema: the schema, which has the class names.
        framing: settings of the model that decide which pixels it gets, as JSON.
        measured: folder of the tables of measured shards, which later runs use again.
    """

    SPEC_CLASS = ImageStatisticsSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        test_examples: types.BaseChannel,
        schema: types.BaseChannel,
        framing: str,
        measured: str,
    ) -> None:
        statistics = types.Channel(type=artifacts.ImageStatisticsArtifact)
        super().__init__(
            ImageStatisticsSpec(
                examples=examples,
                test_examples=test_examples,
                schema=schema,
                framing=framing,
                measured=measured,
                statistics=statistics,
            )
        )

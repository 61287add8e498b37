"""ImageStatistics component, which measures the images of a span and finds equal and nearly equal images."""

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.io.parquetio import WriteToParquet
from tfx import types
from tfx.components.example_gen.utils import SPAN_PROPERTY_NAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from components import artifacts
from components.data.statistics.conflicts import CONFLICTS_SCHEMA
from components.data.statistics.exhibits import EXHIBITS_SCHEMA
from components.data.statistics.figures import FIGURES, TABLE
from components.data.statistics.findings import search
from components.data.statistics.leaks import TWINS_SCHEMA
from components.data.statistics.measure import ROW, VERSIONS, measure_shard
from components.data.statistics.shard_tables import write_table
from components.data.statistics.summary import total
from components.data.worker_code import with_same_code
from trainer.examples import class_names
from trainer.framing import Framing

# Files of an ImageStatistics artifact.
EXHIBITS = "exhibits.parquet"  # a folder of Parquet files with the rows of `exhibits.EXHIBITS_SCHEMA`
TWINS = "twins.parquet"  # a folder of Parquet files with the rows of `leaks.TWINS_SCHEMA`
CONFLICTS = "conflicts.parquet"  # a folder of Parquet files with the rows of `conflicts.CONFLICTS_SCHEMA`


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
                | "MeasureShards"
                >> beam.Map(
                    with_same_code(write_table),
                    partial(measure_shard, framing=framing),
                    ROW,
                    "".join([exec_properties["framing"], exec_properties.get("digest", ""), *VERSIONS]),
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

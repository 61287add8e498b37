"""SpanExampleGen: brings a span that `vitpipe data prepare` wrote into the graph.

It checks the shards against the manifest and copies them. TFX's ImportExampleGen would read, shuffle and compress all
examples in a Beam job, but a span is already split, shuffled and sharded.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import types
from tfx.components import ImportExampleGen
from tfx.components.example_gen import driver
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.orchestration import data_types
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.proto.orchestration.driver_output_pb2 import DriverOutput
from tfx.types import artifact_utils
from tfx.utils import proto_utils

from components.data.ingest import manifest, safe_files, span_folder
from components.data.ingest.verify import span_problems
from components.errors import DataRefused

SPAN_FOLDER, SPAN_DIGEST = "span_folder", "span_digest"
_MAX_NAMED = 5  # problems in a message


class Driver(driver.FileBasedDriver):
    """Driver that adds the span's digest to the cache key, and rejects a span that changed after it was used."""

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Add the span's folder and digest to the properties of the execution.

        Args:
            exec_properties: properties from the compiled pipeline.
            pipeline_info: the pipeline and its run.
            component_info: the node.

        Returns:
            The properties that TFX resolves, with SPAN_FOLDER and SPAN_DIGEST.

        Raises:
            DataRefused: if the manifest or a shard cannot be read, a split has no shard, or the shards have changed
                since an earlier run used this span.
        """
        config = range_config_pb2.RangeConfig()
        proto_utils.json_to_proto(exec_properties["range_config"], config)
        folder = span_folder(Path(exec_properties["input_base"]), config.static_range.start_span_number)
        span_manifest = manifest.read(folder)
        for name in span_manifest.shards:
            if os.path.lexists(folder / name):
                # This rejects links: TFX would follow a link, and fail with a traceback on a dangling link.
                safe_files.open_file(folder / name).close()
        try:
            properties: dict[str, Any] = super().resolve_exec_properties(exec_properties, pipeline_info, component_info)
        except ValueError as error:  # no file of a split
            raise DataRefused(
                f"{exec_properties['input_base']}: a split of the span has no shard ({error}): restore the span"
            ) from error
        digest = span_manifest.digest()
        with self._metadata_handle as handle:
            examples = handle.store.get_artifacts_by_type("Examples")
        for earlier in examples:
            if earlier.state != mlmd.Artifact.LIVE:  # left by an ingestion that was refused
                continue
            known = earlier.custom_properties
            if known[SPAN_FOLDER].string_value == str(folder) and known[SPAN_DIGEST].string_value != digest:
                raise DataRefused(
                    f"{folder} has changed since it was used: the digest of its shards was "
                    f"{known[SPAN_DIGEST].string_value[:12]} in {earlier.uri} and is now {digest[:12]}. A span must "
                    "not change: restore it, and prepare new data as the next span or into another folder"
                )
        return properties | {SPAN_FOLDER: str(folder), SPAN_DIGEST: digest}

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        """Record the span's folder and digest on the Examples artifact."""
        result = super().run(execution_info)
        [examples] = result.output_artifacts["examples"].artifacts
        for name in SPAN_FOLDER, SPAN_DIGEST:
            examples.custom_properties[name].string_value = result.exec_properties[name].string_value
        return result


class Executor(base_beam_executor.BaseBeamExecutor):  # TFX requires a Beam executor for an ExampleGen
    """Executor that checks the splits of a span and copies them."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Check every shard against the manifest, then copy the shards.

        Args:
            input_dict: not used.
            output_dict: `examples`, where the copies are written.
            exec_properties: `input_config` with the splits, and SPAN_FOLDER.

        Raises:
            DataRefused: if the span does not match its manifest, or a shard changes while it is copied.
        """
        config = example_gen_pb2.Input()
        proto_utils.json_to_proto(exec_properties["input_config"], config)
        splits = [split.name for split in config.splits]
        folder = Path(exec_properties[SPAN_FOLDER])
        if problems := span_problems(folder, splits):
            more = len(problems) - _MAX_NAMED
            named = "; ".join(problems[:_MAX_NAMED]) + (f"; and {more:,} more" if more > 0 else "")
            raise DataRefused(f"{named}; restore the span, or prepare the data again as the next span")
        shards = manifest.read(folder).shards
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(splits)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        for split in splits:
            target = Path(artifact_utils.get_split_uri([examples], split))
            target.mkdir(parents=True)
            for name in sorted(name for name in shards if name.startswith(f"{split}/")):
                shard, copy = folder / name, target / Path(name).name
                with safe_files.open_file(shard) as file, copy.open("wb") as copied:
                    shutil.copyfileobj(file, copied, 2**20)
                if safe_files.file_digest(copy) != shards[name].sha256:
                    raise DataRefused(
                        f"{shard} changed while it was read: wait until nothing writes to it, and run again"
                    )


class SpanExampleGen(ImportExampleGen):
    """Component that copies the raw examples of one span into the graph.

    Args:
        data: absolute path of the data folder.
        span: number of the span.
        splits: names of the splits to copy.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, data: str, span: int, splits: list[str]) -> None:
        patterns = {name: f"span-{{SPAN}}/{name}/part-*.tfrecord" for name in splits}
        super().__init__(
            input_base=data,
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name=name, pattern=pattern) for name, pattern in patterns.items()]
            ),
            # Without an explicit configuration TFX logs that it divides a single split into train and eval.
            output_config=example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    splits=[example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in splits]
                )
            ),
            range_config=range_config_pb2.RangeConfig(
                static_range=range_config_pb2.StaticRange(start_span_number=span, end_span_number=span)
            ),
        )

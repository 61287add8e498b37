"""TFX's ImportExampleGen for spans that `vitpipe data prepare` wrote: checked against their manifest, then copied.

A span is split, shuffled and sharded already, so nothing is read into Beam, shuffled and compressed anew.
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
_MOST_NAMED = 5  # problems in a message


class Driver(driver.FileBasedDriver):
    """Puts the span's digest into the cache key and the record, and refuses a span that has changed since it was used.

    Raises DataRefused.
    """

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        config = range_config_pb2.RangeConfig()
        proto_utils.json_to_proto(exec_properties["range_config"], config)
        folder = span_folder(Path(exec_properties["input_base"]), config.static_range.start_span_number)
        read = manifest.read(folder)
        for name in read.shards:
            if os.path.lexists(folder / name):
                # TFX would follow a link, and fail with a trace on a dangling one.
                safe_files.open_file(folder / name).close()
        try:
            properties: dict[str, Any] = super().resolve_exec_properties(exec_properties, pipeline_info, component_info)
        except ValueError as error:  # no file of a split
            raise DataRefused(
                f"{exec_properties['input_base']}: a split of the span has no shard ({error}): put it back"
            ) from error
        digest = read.digest()
        with self._metadata_handle as handle:
            examples = handle.store.get_artifacts_by_type("Examples")
        for used in examples:
            known = used.custom_properties
            if used.state != mlmd.Artifact.LIVE:  # of an ingestion that was refused itself
                continue
            if known[SPAN_FOLDER].string_value == str(folder) and known[SPAN_DIGEST].string_value != digest:
                raise DataRefused(
                    f"{folder} has changed since it was used: its shards had the digest "
                    f"{known[SPAN_DIGEST].string_value[:12]} in {used.uri}, and have {digest[:12]} now. A span never "
                    "changes: put it back, and prepare what is new as the next span, or into another folder"
                )
        return properties | {SPAN_FOLDER: str(folder), SPAN_DIGEST: digest}

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        result = super().run(execution_info)
        [examples] = result.output_artifacts["examples"].artifacts
        for name in SPAN_FOLDER, SPAN_DIGEST:
            examples.custom_properties[name].string_value = result.exec_properties[name].string_value
        return result


class Executor(base_beam_executor.BaseBeamExecutor):  # as TFX wants it of an ExampleGen
    """Raises DataRefused, naming the first problems, unless every shard is as the manifest has it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        config = example_gen_pb2.Input()
        proto_utils.json_to_proto(exec_properties["input_config"], config)
        splits = [split.name for split in config.splits]
        folder = Path(exec_properties[SPAN_FOLDER])
        if problems := span_problems(folder, splits):
            more = len(problems) - _MOST_NAMED
            named = "; ".join(problems[:_MOST_NAMED]) + (f"; and {more:,} more" if more > 0 else "")
            raise DataRefused(f"{named}; put the span back as it was, or prepare it anew as the next")
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
                    raise DataRefused(f"{shard} changed while it was read: let its writer end, and run again")


class SpanExampleGen(ImportExampleGen):
    """Raw examples of some splits of one span.

    Args:
        data: absolute path of the data folder.
        span: number of the span.
        splits: names of its splits.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, data: str, span: int, splits: list[str]):
        patterns = {name: f"span-{{SPAN}}/{name}/part-*.tfrecord" for name in splits}
        super().__init__(
            input_base=data,
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name=name, pattern=pattern) for name, pattern in patterns.items()]
            ),
            # Said outright: TFX would announce that it cuts a single split into train and eval.
            output_config=example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    splits=[example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in splits]
                )
            ),
            range_config=range_config_pb2.RangeConfig(
                static_range=range_config_pb2.StaticRange(start_span_number=span, end_span_number=span)
            ),
        )

"""SpanExampleGen: brings a span that `vitpipe data prepare` wrote into the graph, or a window of several spans.

It checks the shards against the manifest and copies them. TFX's ImportExampleGen would read, shuffle and compress all
examples in a Beam job, but a span is already split, shuffled and sharded. TFX's `range_config` selects a single span.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from google.protobuf import struct_pb2
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import types
from tfx.components import FileBasedExampleGen
from tfx.components.example_gen import driver
from tfx.components.example_gen.utils import FINGERPRINT_PROPERTY_NAME, SPAN_PROPERTY_NAME
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.orchestration import data_types
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.proto.orchestration.driver_output_pb2 import DriverOutput
from tfx.types import artifact_utils
from tfx.utils import proto_utils

from components.data.checked_copy import check_and_copy
from components.data.gate.bounds import DATA_FOLDER
from components.data.ingest import manifest, safe_files, span_folder
from components.data.span_properties import DROPPING_SPANS, EARLIER_SPANS, SPAN_DIGEST, SPAN_FOLDER
from components.data.window import copy_window, dropping_spans, earlier_spans
from components.errors import DataRefused

WINDOW, EARLIER_IMAGES = "window", "earlier_images"  # entries of the component's custom config

log = logging.getLogger(__name__)


class Driver(driver.FileBasedDriver):
    """Driver that adds the span's digest to the cache key, and rejects a span that changed after it was used."""

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Add the folder and digest of the span, and the other spans of a window, to the properties of the execution.

        Args:
            exec_properties: properties from the compiled pipeline.
            pipeline_info: not used.
            component_info: the node.

        Returns:
            The properties that TFX resolves, with SPAN_FOLDER, SPAN_DIGEST and, for a window, EARLIER_SPANS and
            DROPPING_SPANS.

        Raises:
            DataRefused: if the manifest or a shard cannot be read, a split has no shard, or the shards of a span have
                changed since an earlier run used it.
        """
        config = range_config_pb2.RangeConfig()
        proto_utils.json_to_proto(exec_properties["range_config"], config)
        data, span = Path(exec_properties["input_base"]), config.static_range.start_span_number
        digest = _digest(span_folder(data, span))
        try:
            properties: dict[str, Any] = super().resolve_exec_properties(exec_properties, pipeline_info, component_info)
        except ValueError as error:  # no file of a split
            raise DataRefused(
                f"{span_folder(data, span)}: a split of the span has no shard ({error}): restore the span, or prepare "
                "the data again as the next span"
            ) from error
        with self._metadata_handle as handle:
            used = _used_spans(handle.store.get_artifacts_by_type("Examples"))
            window = int(_custom_config(exec_properties).get(WINDOW, 1))
            refused = _refused(handle.store, self._pipeline, data) if window > 1 else set()
        others = {number: _digest(span_folder(data, number)) for number in earlier_spans(data, span, window, refused)}
        for number, now in {span: digest, **others}.items():
            before, uri = used.get(span_folder(data, number), (now, ""))
            if now != before:
                raise DataRefused(
                    f"{span_folder(data, number)} has changed since it was used: the digest of its shards was "
                    f"{before[:12]} in {uri} and is now {now[:12]}. A span must not change: restore it, and prepare "
                    "new data as the next span or into another folder"
                )
        dropping = dropping_spans(data, span, min(others, default=span), refused)
        properties |= {SPAN_FOLDER: str(span_folder(data, span)), SPAN_DIGEST: digest}
        # TFX's fingerprint contains the times of the files, so the cache would miss a restored copy of the span.
        properties[FINGERPRINT_PROPERTY_NAME] = digest
        dropping_digests = {number: _digest(span_folder(data, number)) for number in dropping}
        for name, digests in (EARLIER_SPANS, others), (DROPPING_SPANS, dropping_digests):
            if digests:
                properties[name] = json.dumps(digests)
        return properties

    def run(self, execution_info: ExecutionInfo) -> DriverOutput:
        """Record the folder and digest of the span, and the other spans of a window, on the Examples artifact."""
        self._pipeline = execution_info.pipeline_info.id  # the `pipeline_info` that TFX passes on is empty
        result = super().run(execution_info)
        [examples] = result.output_artifacts["examples"].artifacts
        for name in SPAN_FOLDER, SPAN_DIGEST, EARLIER_SPANS, DROPPING_SPANS:
            if name in result.exec_properties:
                examples.custom_properties[name].string_value = result.exec_properties[name].string_value
        return result


def _digest(folder: Path) -> str:
    """Return the digest of a span's shards, according to its manifest. No shard may be a link or a special file."""
    span_manifest = manifest.read(folder)
    for name in span_manifest.shards:
        if os.path.lexists(folder / name):
            # This rejects links: TFX would follow a link, and fail with a traceback on a dangling link.
            safe_files.open_file(folder / name).close()
    return span_manifest.digest()


def _refused(store: MetadataStore, pipeline: str, data: Path) -> set[int]:
    """Return the spans of a data folder that the data gate refused at last, with or without earlier spans.

    Args:
        store: the metadata store.
        pipeline: name of the pipeline whose verdicts count.
        data: the data folder.
    """
    context = store.get_context_by_type_and_name("pipeline", pipeline)
    verdicts = sorted(store.get_artifacts_by_type("DataVerdict"), key=lambda verdict: verdict.id, reverse=True)
    passed: dict[int, int] = {}  # by span, according to the newest verdict
    for verdict in verdicts:
        span = verdict.properties["span"].int_value
        if span in passed or verdict.custom_properties[DATA_FOLDER].string_value != str(data):
            continue
        if context and context.id in {found.id for found in store.get_contexts_by_artifact(verdict.id)}:
            passed[span] = verdict.properties["passed"].int_value
    return {span for span, has_passed in passed.items() if not has_passed}


def _used_spans(examples: list[mlmd.Artifact]) -> dict[Path, tuple[str, str]]:
    """Return, for the folder of each span that examples were copied from, its digest and the URI of the first copy."""
    used: dict[Path, tuple[str, str]] = {}
    for artifact in examples:
        if artifact.state != mlmd.Artifact.LIVE:  # left by an ingestion that was refused
            continue
        known = artifact.custom_properties
        newest = Path(known[SPAN_FOLDER].string_value)
        used.setdefault(newest, (known[SPAN_DIGEST].string_value, artifact.uri))
        for number, digest in json.loads(known[EARLIER_SPANS].string_value or "{}").items():
            used.setdefault(span_folder(newest.parent, number), (digest, artifact.uri))
    return used


def _custom_config(exec_properties: dict[str, Any]) -> dict[str, Any]:
    config, values = example_gen_pb2.CustomConfig(), struct_pb2.Struct()
    proto_utils.json_to_proto(exec_properties.get("custom_config") or "{}", config)
    config.custom_config.Unpack(values)
    return dict(values)


class Executor(base_beam_executor.BaseBeamExecutor):
    """Executor that checks the splits of a span, or of all spans of a window, and copies them."""

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
            exec_properties: `input_config` with the splits, SPAN_FOLDER, and for a window EARLIER_SPANS and
                DROPPING_SPANS.

        Raises:
            DataRefused: if a span does not match its manifest, or a shard changes while it is copied.
        """
        config = example_gen_pb2.Input()
        proto_utils.json_to_proto(exec_properties["input_config"], config)
        splits = [split.name for split in config.splits]
        folder = Path(exec_properties[SPAN_FOLDER])
        earlier = [int(number) for number in json.loads(exec_properties.get(EARLIER_SPANS, "{}"))]
        spans = {folder: "restore the span, or prepare the data again as the next span"}
        for number in earlier:
            advice = "restore the span; to train without it, delete its folder or lower data.window"
            spans[span_folder(folder.parent, number)] = advice
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(splits)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        targets = {split: Path(artifact_utils.get_split_uri([examples], split)) for split in splits}
        scratch = Path(examples.uri, ".workers")  # next to the copies, where the workers of an engine write, too
        for each in *targets.values(), scratch:
            each.mkdir(parents=True)
        window = _custom_config(exec_properties)
        check_and_copy(self._make_beam_pipeline, spans, targets, copy=not window, scratch=scratch)
        if window:
            numbers = [examples.get_int_custom_property(SPAN_PROPERTY_NAME), *earlier]
            most = int(window[EARLIER_IMAGES]) if EARLIER_IMAGES in window else None
            dropping = [int(number) for number in json.loads(exec_properties.get(DROPPING_SPANS, "{}"))]
            counts = copy_window(self._make_beam_pipeline, folder.parent, numbers, dropping, targets, most, scratch)
            log.info(
                "images of the window: %s", ", ".join(f"{count:,} of span {number}" for number, count in counts.items())
            )
        # An engine may still do an element for the second time. Without the folder it fails, and nothing remains.
        ended = scratch.rename(scratch.with_name(".ended"))
        shutil.rmtree(ended)


class SpanExampleGen(FileBasedExampleGen):
    """Component that copies the raw examples of one span, or of a window of spans, into the graph.

    Args:
        data: absolute path of the data folder.
        span: number of the span.
        splits: names of the splits to copy.
        window: largest number of spans in the window, see `components.data.window`.
        earlier_images: largest number of training images that each earlier span contributes; None for all.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self, data: str, span: int, splits: list[str], window: int = 1, earlier_images: int | None = None
    ) -> None:
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
            custom_config=_pack({WINDOW: window, EARLIER_IMAGES: earlier_images}) if window > 1 else None,
        )


def _pack(values: dict[str, Any]) -> example_gen_pb2.CustomConfig:
    """Return a custom config with these values, which `_custom_config` reads. None stands for a missing value."""
    struct = struct_pb2.Struct()
    struct.update({name: value for name, value in values.items() if value is not None})
    config = example_gen_pb2.CustomConfig()
    config.custom_config.Pack(struct)
    return config

"""Cache keys of TFX that depend neither on the location of the run folder and the data, nor on the engine of Beam.

TFX puts the absolute paths of inputs and settings, and the arguments of Beam, into the key of a step. After a move, or
a change of the engine, every step would run again, and an equal model would be pushed a second time.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import types
from tfx.orchestration.portable import cache_utils
from tfx.proto.orchestration import executable_spec_pb2

from pipeline.beam import IN_CACHE_KEYS


@contextlib.contextmanager
def lasting_keys(places: Mapping[str, str]) -> Iterator[None]:
    """Compute cache keys as if no folder had been moved, and Beam ran in memory.

    Args:
        places: for the current path of each moved folder, its path at the first run.
    """
    compute = cache_utils.get_cache_context

    def get_cache_context(
        *,
        executor_spec: Message | None = None,
        input_artifacts: Mapping[str, Sequence[types.Artifact]] | None = None,
        output_artifacts: Mapping[str, Sequence[types.Artifact]] | None = None,
        parameters: Mapping[str, Any] | None = None,
        **others: object,
    ) -> mlmd.Context:
        return compute(
            executor_spec=_in_memory(executor_spec),
            input_artifacts=_artifacts(input_artifacts or {}, places),
            output_artifacts=_artifacts(output_artifacts or {}, places),
            parameters={
                name: _first_text(value, places) if isinstance(value, str) else value
                for name, value in (parameters or {}).items()
            },
            **others,
        )

    # TFX has no interface for this, so its function is replaced.
    cache_utils.get_cache_context = get_cache_context
    try:
        yield
    finally:
        cache_utils.get_cache_context = compute


def _in_memory(executor_spec: Message | None) -> Message | None:
    """Return a copy of a specification with the arguments of Beam that all cache keys have."""
    if not isinstance(executor_spec, executable_spec_pb2.BeamExecutableSpec):
        return executor_spec
    spec = executable_spec_pb2.BeamExecutableSpec(
        python_executor_spec=executor_spec.python_executor_spec, beam_pipeline_args=IN_CACHE_KEYS
    )
    for argument in IN_CACHE_KEYS:
        spec.beam_pipeline_args_placeholders.add().value.string_value = argument
    return spec


def _artifacts(
    channels: Mapping[str, Sequence[types.Artifact]], places: Mapping[str, str]
) -> dict[str, list[types.Artifact]]:
    copies = {name: [copy.deepcopy(artifact) for artifact in artifacts] for name, artifacts in channels.items()}
    for artifacts in copies.values():
        for artifact in artifacts:
            artifact.uri = _first_text(artifact.uri, places)
            for value in artifact.mlmd_artifact.custom_properties.values():
                if value.HasField("string_value"):
                    value.string_value = _first_text(value.string_value, places)
    return copies


def _first_text(text: str, places: Mapping[str, str]) -> str:
    """Return a text in which each current path is replaced by the path at the first run."""
    for current, first in places.items():
        text = re.sub(rf'{re.escape(current)}(?=[/"]|$)', first.replace("\\", r"\\"), text)
    return text

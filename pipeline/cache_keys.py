"""Cache keys of TFX that do not depend on the location of the run folder and the data.

TFX puts the absolute paths of inputs and settings into the key of a step. After a move every step would run again, and
an equal model would be pushed a second time.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import types
from tfx.orchestration.portable import cache_utils


@contextlib.contextmanager
def as_first_recorded(places: Mapping[str, str]) -> Iterator[None]:
    """Compute cache keys as if nothing had been moved. `places` maps current paths to those of the first runs."""
    compute = cache_utils.get_cache_context

    def get_cache_context(
        *,
        input_artifacts: Mapping[str, Sequence[types.Artifact]] | None = None,
        output_artifacts: Mapping[str, Sequence[types.Artifact]] | None = None,
        parameters: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> mlmd.Context:
        return compute(
            input_artifacts=_artifacts(input_artifacts or {}, places),
            output_artifacts=_artifacts(output_artifacts or {}, places),
            parameters={name: _text(value, places) for name, value in (parameters or {}).items()},
            **others,
        )

    # TFX offers no other way to choose what a key is made of.
    cache_utils.get_cache_context = get_cache_context if places else compute
    try:
        yield
    finally:
        cache_utils.get_cache_context = compute


def _artifacts(
    channels: Mapping[str, Sequence[types.Artifact]], places: Mapping[str, str]
) -> dict[str, list[types.Artifact]]:
    copies = {name: [copy.deepcopy(artifact) for artifact in artifacts] for name, artifacts in channels.items()}
    for artifacts in copies.values():
        for artifact in artifacts:
            artifact.uri = _text(artifact.uri, places)
            for value in artifact.mlmd_artifact.custom_properties.values():
                if value.HasField("string_value"):
                    value.string_value = _text(value.string_value, places)
    return copies


def _text(value: Any, places: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    for today, first in places.items():
        value = re.sub(rf'{re.escape(today)}(?=[/"]|$)', first.replace("\\", r"\\"), value)
    return value

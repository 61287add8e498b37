"""Resolver strategy that finds the newest earlier span that passed the data gate, for comparison with a new span."""

from pathlib import Path

from ml_metadata import MetadataStore
from tfx import types
from tfx.dsl.components.common import resolver

from components.data.gate.bounds import DATA_FOLDER


class PreviousSpan(resolver.ResolverStrategy):
    """Of the verdicts on spans of the folder `data`, the newest that passed, of the highest span below `span`; or none.

    Not simply the span before: one that was refused says nothing about what data should look like.
    """

    def __init__(self, data: str, span: int):
        self._data = data
        self._span = span

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        [(key, verdicts)] = input_dict.items()
        earlier = [
            verdict
            for verdict in verdicts
            if verdict.passed
            and verdict.span < self._span
            and verdict.get_string_custom_property(DATA_FOLDER) == self._data
            and Path(verdict.uri).is_dir()
        ]
        newest = max(
            earlier, key=lambda verdict: (verdict.span, verdict.mlmd_artifact.create_time_since_epoch), default=None
        )
        return {key: [newest] if newest else []}

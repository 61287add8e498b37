"""Resolver strategy that finds the newest earlier span that passed the data gate, for comparison with a new span."""

from pathlib import Path

from ml_metadata import MetadataStore
from tfx import types
from tfx.dsl.components.common import resolver

from components.data.gate.bounds import DATA_FOLDER


class PreviousSpan(resolver.ResolverStrategy):
    """Strategy that selects the verdict on the newest earlier span of the same data folder that passed the data gate.

    Spans that were refused are passed over, because they do not show what the data should look like. If a span has
    several verdicts that passed, the latest is selected.

    Args:
        data: path of the data folder.
        span: number of the new span. Only lower numbers are considered.
    """

    def __init__(self, data: str, span: int) -> None:
        self._data = data
        self._span = span

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Select one verdict.

        Args:
            store: the metadata store; it is not used.
            input_dict: one key with all verdicts of the data gate.

        Returns:
            The same key with the selected verdict, or with an empty list if no earlier span passed.
        """
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

"""Resolver strategy that finds the values with which to train."""

from pathlib import Path

from ml_metadata import MetadataStore
from tfx import types
from tfx.dsl.components.common import resolver

from components.model.tuning_record import SPACE


class NewestTuning(resolver.ResolverStrategy):
    """Strategy that resolves the HyperParameters artifact of the newest tuning with the same search space.

    Args:
        space: The search space, from `components.model.tuning_record.space_text`.
    """

    def __init__(self, space: str) -> None:
        self._space = space

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Select the newest of all tunings.

        Args:
            store: Not used.
            input_dict: All HyperParameters artifacts, under one key.

        Returns:
            A list of at most one artifact, under the same key.
        """
        [(key, tunings)] = input_dict.items()
        fitting = [
            tuning
            for tuning in tunings
            if tuning.get_string_custom_property(SPACE) == self._space and Path(tuning.uri).is_dir()
        ]
        return {key: sorted(fitting, key=lambda tuning: tuning.id)[-1:]}

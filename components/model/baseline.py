"""Resolver strategy that finds the model that serves now, for comparison with a candidate."""

import logging
from pathlib import Path

from ml_metadata import MetadataStore
from tfx import types
from tfx.dsl.components.common import resolver

from components.model.serving_folder import serving_now

log = logging.getLogger(__name__)


class Baseline(resolver.ResolverStrategy):
    """Strategy that resolves the Model artifact of the serving model.

    TFX's strategy for the latest blessed model does not fit, because that model may not have been pushed, or may have
    been rolled back.

    The result is empty before the first push. It is also empty if the artifact of the serving model is missing, which
    must not block the pipeline forever: the gate then warns that the candidate was not compared.

    Args:
        serving: Path of the folder that a model server watches.
    """

    def __init__(self, serving: str) -> None:
        self._serving = Path(serving)

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Select the serving model among all models.

        Args:
            store: Not used.
            input_dict: All Model artifacts, under one key.

        Returns:
            A list of at most one model, under the same key.
        """
        record = serving_now(self._serving)
        if record is None:
            return {key: [] for key in input_dict}
        [(key, models)] = input_dict.items()
        matches = [model for model in models if record.model.identifies(model) and Path(model.uri).is_dir()]
        if not matches:
            log.warning(
                "the candidate cannot be compared with the serving model %s: its artifact %s is missing, or not in ML "
                "Metadata",
                self._serving / str(record.version),
                record.model.place,
            )
        return {key: matches}

"""Resolver strategy that finds the model that serves now, for comparison with a candidate."""

import logging
from pathlib import Path

from ml_metadata import MetadataStore
from tfx import types
from tfx.dsl.components.common import resolver

from components.model.serving_folder import serving_now

log = logging.getLogger(__name__)


class Baseline(resolver.ResolverStrategy):
    """Resolve the model that serves now; nothing before the first push, or if the model's artifact is gone.

    TFX's "latest blessed" would not do: a blessed model may have failed its push since, or been rolled back.
    A serving model whose artifact is gone must not block the pipeline forever. The gate knows that a model serves, and
    warns that the candidate was not compared with it.
    """

    def __init__(self, serving: str):
        self._serving = Path(serving)

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        record = serving_now(self._serving)
        if record is None:
            return {key: [] for key in input_dict}
        [(key, models)] = input_dict.items()
        found = [model for model in models if record.model.names(model) and Path(model.uri).is_dir()]
        if not found:
            log.warning(
                "the serving model %s cannot be compared with: its artifact %s is gone or unknown to ML Metadata",
                self._serving / str(record.version),
                record.model.place,
            )
        return {key: found}

"""Resolver strategy: the model serving now, which a candidate must not fall behind."""

import logging
from pathlib import Path

from tfx.dsl.components.common import resolver

from components.serving_folder import serving_now

log = logging.getLogger(__name__)


class ServingModel(resolver.ResolverStrategy):
    """Of all models, the one that serves now; none before the first push, and none if its artifact is gone.

    Not TFX's "latest blessed": a blessed model may have failed its push since, or been rolled back.
    A serving model whose artifact is gone must not block the pipeline for ever. The gate knows that it serves, and
    warns that nothing was compared with it.
    """

    def __init__(self, serving: str):
        self._serving = Path(serving)

    def resolve_artifacts(self, store, input_dict):
        record = serving_now(self._serving)
        if record is None:
            return {key: [] for key in input_dict}
        [(key, models)] = input_dict.items()
        found = [model for model in models if record.model.names(model) and Path(model.uri).is_dir()]
        if not found:
            log.warning(
                "the model serving now, %s, cannot be compared with: %s is gone, or ML Metadata does not know it",
                self._serving / str(record.version), record.model.uri.rpartition("/root/")[2],
            )  # fmt: skip
        return {key: found}

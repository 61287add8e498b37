"""Resolver strategy: the model serving now, which a candidate must not fall behind."""

from pathlib import Path

from tfx.dsl.components.common import resolver

from components.serving_folder import serving_now


class ServingModel(resolver.ResolverStrategy):
    """Of all models, the one that serves now; none before the first push.

    Not TFX's "latest blessed": a blessed model may have failed its push since, or been rolled back.
    """

    def __init__(self, serving: str):
        self._serving = Path(serving)

    def resolve_artifacts(self, store, input_dict):
        record = serving_now(self._serving)
        return {
            key: [artifact for artifact in artifacts if record and artifact.uri == record.model_uri]
            for key, artifacts in input_dict.items()
        }

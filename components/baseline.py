"""Resolver strategy: the model serving now, which a candidate must not fall behind."""

from pathlib import Path

from tfx.dsl.components.common import resolver

from components.serving_folder import RECORD, serving_now


class ServingModel(resolver.ResolverStrategy):
    """Of all models, the one that serves now; none before the first push.

    Not TFX's "latest blessed": a blessed model may have failed its push since, or been rolled back.
    Raises LookupError when a model serves that can no longer be compared with: going on without it would turn that
    check of the gate off in silence.
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
            raise LookupError(
                f"the model serving now, {self._serving / str(record.version)}, cannot be compared with: its {RECORD} "
                f"names {record.model.uri}, which is gone, or which this metadata store does not know. Put it back, or "
                f"move {self._serving} away to start without a serving model"
            )
        return {key: found}

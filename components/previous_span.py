"""Resolver strategy: the newest earlier span that passed the data gate, which a new one is compared with."""

from tfx.dsl.components.common import resolver


class PreviousSpan(resolver.ResolverStrategy):
    """Of all data verdicts, the newest one that passed, of the highest span below `span`; none before the first.

    Not simply the span before: one that was refused says nothing about what data should look like.
    """

    def __init__(self, span: int):
        self._span = span

    def resolve_artifacts(self, store, input_dict):
        [(key, verdicts)] = input_dict.items()
        earlier = [verdict for verdict in verdicts if verdict.passed and verdict.span < self._span]
        newest = max(
            earlier, key=lambda verdict: (verdict.span, verdict.mlmd_artifact.create_time_since_epoch), default=None
        )
        return {key: [newest] if newest else []}

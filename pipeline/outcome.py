"""Outcome of launching a node. Imports no TFX, so that reading a verdict does not load it."""

from dataclasses import dataclass
from enum import StrEnum

# Id of the node that writes the report: its failure changes nothing in what a run came to.
REPORT = "RunReport"
# Property of an execution that failed: in full why the data are not fit for use, where it found that by reading them.
REFUSED = "data_refused"


class NodeState(StrEnum):
    COMPLETE = "complete"
    CACHED = "cached"  # the outputs of an equal, earlier execution were taken over
    SKIPPED = "skipped"  # a condition of the graph did not hold
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """How a launch ended.

    `execution_id` is None where ML Metadata has no execution: skipped, or failed before it. `data_refused`: it failed
    because the data are not fit for use, which `error` says in full.
    """

    node: str
    state: NodeState
    seconds: float
    execution_id: int | None = None
    error: str = ""
    data_refused: bool = False

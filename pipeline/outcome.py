"""Outcome of launching a node. Imports no TFX, so that reading a verdict does not load it."""

from dataclasses import dataclass
from enum import StrEnum

# Id of the node that writes the report. Its failure does not change the outcome of a run.
REPORT = "RunReport"
# Property of an execution that failed because the data is not fit for use: the full reason.
REFUSED = "data_refused"
# Property of an execution whose process was killed, so that it could not report an error: the possible reasons.
KILLED = "killed"


class NodeState(StrEnum):
    """State of a node after its launch."""

    COMPLETE = "complete"
    CACHED = "cached"  # the outputs of an equal, earlier execution were reused
    SKIPPED = "skipped"  # a condition of the graph did not hold
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """Outcome of launching one node."""

    node: str
    state: NodeState
    seconds: float
    execution_id: int | None = None  # None if the node was skipped, or failed before ML Metadata had an execution
    error: str = ""  # why the node failed
    data_refused: bool = False  # the node failed because the data is not fit for use, which `error` explains
    engine_failed: bool = False  # the engine of the Beam jobs failed, so another attempt may succeed

"""Contents of ML Metadata as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

Value = int | float | str | bool | None  # bytes are converted to hexadecimal digits

# Names of input channels that a step uses only for a comparison: their artifacts do not contribute to its outputs.
COMPARED = ("baseline_model", "previous")
RESOLVER = "tfx.dsl.components.common.resolver.Resolver"


@dataclass(frozen=True)
class Artifact:
    """An artifact. `properties` also contains its custom properties."""

    id: int
    type: str
    uri: str
    state: str  # pending, live, marked for deletion, deleted, ...
    name: str
    created_ms: int  # milliseconds since 1970
    updated_ms: int
    properties: Mapping[str, Value]

    @property
    def created(self) -> datetime:
        """Time of its creation, in UTC."""
        return datetime.fromtimestamp(self.created_ms / 1000, UTC)


@dataclass(frozen=True)
class Execution:
    """One launch of a node. Artifacts that only a condition of the graph reads are not among the inputs."""

    id: int
    node: str  # its id in the graph
    type: str
    state: str  # new, running, complete, failed, cached, canceled
    started_ms: int
    updated_ms: int
    properties: Mapping[str, Value]
    inputs: Mapping[str, tuple[Artifact, ...]]
    outputs: Mapping[str, tuple[Artifact, ...]]

    @property
    def seconds(self) -> float:
        """Seconds from its registration to its last change, which is its end if it has ended."""
        return (self.updated_ms - self.started_ms) / 1000


@dataclass(frozen=True)
class Run:
    """One run of a pipeline, with its executions so far, the oldest first."""

    id: int  # id of its context
    name: str
    pipeline: str
    started_ms: int
    facts: Mapping[str, Value]  # what the run recorded about itself
    executions: tuple[Execution, ...]
    # Version whose `model.json` names this run. A run that is killed right after its push has not recorded the version.
    version: str | None = None

    @property
    def started(self) -> datetime:
        """Time of its registration, in UTC."""
        return datetime.fromtimestamp(self.started_ms / 1000, UTC)

    @property
    def ended_ms(self) -> int:
        """Time of the last change of an execution, in milliseconds since 1970."""
        return max((execution.updated_ms for execution in self.executions), default=self.started_ms)

    def node(self, name: str) -> Execution | None:
        """Return the newest execution of a node, which has several if it was launched again; None if it has none."""
        executions = [execution for execution in self.executions if execution.node == name]
        return max(executions, key=lambda execution: execution.id, default=None)

    def output(self, node: str, name: str) -> Artifact | None:
        """Return the first output artifact of a node.

        Args:
            node: id of the node.
            name: name of the output channel.

        Returns:
            The artifact; None if the node has no such output, for example because it has not ended.
        """
        execution = self.node(node)
        artifacts = execution.outputs.get(name, ()) if execution else ()
        return artifacts[0] if artifacts else None


@dataclass(frozen=True)
class Edge:
    """Use of an artifact by an execution, as an input or output."""

    artifact: int
    execution: int
    into: bool  # True if the artifact is an input of the execution, False if it is an output
    name: str  # name of the channel

    @property
    def compared(self) -> bool:
        """True if the execution used the artifact only for a comparison."""
        return self.into and self.name in COMPARED


@dataclass(frozen=True)
class Lineage:
    """Artifacts and executions from which an artifact was made, or which were made from it.

    The executions have no inputs and outputs: the edges connect them with the artifacts.
    """

    start: int  # id of the artifact
    artifacts: Mapping[int, Artifact]
    executions: Mapping[int, Execution]
    edges: tuple[Edge, ...]
    runs: Mapping[int, str]  # name of the run of each execution

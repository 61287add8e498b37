"""Contents of ML Metadata as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

Value = int | float | str | bool | None  # bytes come as hexadecimal digits

# Input channels that a step compares with: what came in by them did not make what went out.
COMPARED = ("baseline_model", "previous")
RESOLVER = "tfx.dsl.components.common.resolver.Resolver"


@dataclass(frozen=True)
class Artifact:
    """An artifact, its properties and custom properties in one."""

    id: int
    type: str
    uri: str
    state: str  # pending, live, marked for deletion, deleted, ...
    name: str
    created_ms: int  # since 1970
    updated_ms: int
    properties: Mapping[str, Value]

    @property
    def created(self) -> datetime:
        return datetime.fromtimestamp(self.created_ms / 1000, UTC)


@dataclass(frozen=True)
class Execution:
    """One time that a node was launched. Conditions of the graph are no inputs here."""

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
        """From its registration to its last change, which is its end once it has ended."""
        return (self.updated_ms - self.started_ms) / 1000


@dataclass(frozen=True)
class Run:
    """One run of a pipeline, with the executions that it has so far, oldest first."""

    id: int  # of its context
    name: str
    pipeline: str
    started_ms: int
    facts: Mapping[str, Value]  # what it recorded of itself
    executions: tuple[Execution, ...]
    # The version whose `model.json` names this run: a run may be killed after its push, before it recorded it.
    version: str | None = None

    @property
    def started(self) -> datetime:
        return datetime.fromtimestamp(self.started_ms / 1000, UTC)

    @property
    def ended_ms(self) -> int:
        return max((execution.updated_ms for execution in self.executions), default=self.started_ms)

    def node(self, name: str) -> Execution | None:
        """The newest execution of a node: a node that was launched again has several."""
        return max((one for one in self.executions if one.node == name), key=lambda one: one.id, default=None)

    def output(self, node: str, name: str) -> Artifact | None:
        """The first artifact that a node put out under a name, where it has ended."""
        execution = self.node(node)
        artifacts = execution.outputs.get(name, ()) if execution else ()
        return artifacts[0] if artifacts else None


@dataclass(frozen=True)
class Edge:
    """An artifact that went into an execution, or came out of it."""

    artifact: int
    execution: int
    into: bool
    name: str  # of the channel

    @property
    def compared(self) -> bool:
        return self.into and self.name in COMPARED


@dataclass(frozen=True)
class Lineage:
    """Where an artifact came from, or what came of it. Executions carry no inputs and outputs: the edges say it."""

    start: int
    artifacts: Mapping[int, Artifact]
    executions: Mapping[int, Execution]
    edges: tuple[Edge, ...]
    runs: Mapping[int, str]  # by execution, the name of its run

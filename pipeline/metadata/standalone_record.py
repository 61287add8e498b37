"""Record of executions outside of any run, which read a pushed model and write an artifact."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.metadata.address import Address
from pipeline.metadata.garbage import EXPORTED, MONITORED, remove_folder
from pipeline.metadata.writer import MetadataStore, mark_failed


@dataclass(frozen=True)
class Kind:
    """Kind of executions outside of a run."""

    node: str  # in place of the id of a node
    channel: str  # of its output
    artifact_type: str


EXPORT = Kind("Export", "exported_model", EXPORTED)
MONITOR = Kind("Monitor", "report", MONITORED)


@dataclass
class Output:
    """Artifact that an execution writes."""

    folder: Path  # does not exist yet
    properties: dict[str, int | float | str] = field(default_factory=dict)
    artifact: int = 0  # id, after the execution was recorded


class StandaloneRecorder:
    """Recorder of the executions of one kind for one pipeline.

    Args:
        address: the address of the store.
        pipeline: name of the pipeline.
        root: absolute path of the folder of artifacts, below which each execution has its own folder, like every step.
        kind: the kind of the executions.
    """

    def __init__(self, address: Address, pipeline: str, root: Path, kind: Kind) -> None:
        self._store = MetadataStore(address.connection_config())
        self._pipeline, self._root, self._kind = pipeline, root, kind
        self._type = self._store.put_execution_type(mlmd.ExecutionType(name=f"vitpipe.{kind.node}"))
        self._artifact_type = self._store.put_artifact_type(mlmd.ArtifactType(name=kind.artifact_type))

    @contextlib.contextmanager
    def recorded(self, inputs: Sequence[tuple[str, int]]) -> Iterator[Output]:
        """Record an execution: as running, and as complete when the block ends, or as failed if it raises.

        Args:
            inputs: channel and id of each artifact that the execution reads.

        Yields:
            The artifact, whose folder is removed if the block raises.
        """
        execution = mlmd.Execution(type_id=self._type, last_known_state=mlmd.Execution.RUNNING)
        by_id = {one.id: one for one in self._store.get_artifacts_by_id([number for _, number in inputs])}
        of_channel: dict[str, int] = {}
        read = []
        for channel, number in inputs:
            of_channel[channel] = of_channel.get(channel, -1) + 1
            read.append((by_id[number], _event(mlmd.Event.INPUT, channel, of_channel[channel])))
        execution.id, _, _ = self._store.put_execution(
            execution, read, self._contexts(), reuse_context_if_already_exist=True
        )
        output = Output(self._folder(execution.id))
        try:
            yield output
            artifact = mlmd.Artifact(type_id=self._artifact_type, uri=str(output.folder), state=mlmd.Artifact.LIVE)
            for name, value in output.properties.items():
                kind = {int: "int_value", float: "double_value", str: "string_value"}[type(value)]
                setattr(artifact.custom_properties[name], kind, value)
            execution.last_known_state = mlmd.Execution.COMPLETE
            written = [(artifact, _event(mlmd.Event.OUTPUT, self._kind.channel))]
            _, [output.artifact], _ = self._store.put_execution(
                execution, written, self._contexts(), reuse_context_if_already_exist=True
            )
        except BaseException as error:
            self._remove(execution.id)
            # An error of the store must not hide the first one.
            with contextlib.suppress(errors.StatusError):
                mark_failed(self._store, execution.id, error=str(error))
            raise

    def _contexts(self) -> list[mlmd.Context]:
        names = {"pipeline": self._pipeline, "node": f"{self._pipeline}.{self._kind.node}"}
        return [
            mlmd.Context(type_id=self._store.put_context_type(mlmd.ContextType(name=kind)), name=name)
            for kind, name in names.items()
        ]

    def _folder(self, execution: int) -> Path:
        return self._root / self._kind.node / self._kind.channel / str(execution)

    def _remove(self, execution: int) -> None:
        remove_folder(self._root, self._kind.node, self._kind.channel, str(execution))

    def remove_killed(self) -> None:
        """Remove what killed executions left. The caller must know that none is running."""
        context = self._store.get_context_by_type_and_name("node", f"{self._pipeline}.{self._kind.node}")
        for execution in self._store.get_executions_by_context(context.id) if context else []:
            if execution.last_known_state == mlmd.Execution.RUNNING:
                self._remove(execution.id)
                mark_failed(self._store, execution.id, error="killed")


def _event(kind: "mlmd.Event.Type", channel: str, index: int = 0) -> mlmd.Event:
    event = mlmd.Event(type=kind)
    event.path.steps.add().key = channel
    event.path.steps.add().index = index
    return event

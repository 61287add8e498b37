"""Record of exports in ML Metadata: executions outside of any run, which read a pushed model and write an artifact."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.metadata.address import Address
from pipeline.metadata.garbage import EXPORTED, remove_folder
from pipeline.metadata.writer import MetadataStore, mark_failed

_NODE, _CHANNEL = "Export", "exported_model"


@dataclass
class Output:
    """Artifact that an export writes."""

    folder: Path  # does not exist yet
    properties: dict[str, int | float | str] = field(default_factory=dict)
    artifact: int = 0  # id, after the export was recorded


class ExportRecorder:
    """Recorder of the exports of one pipeline. The caller must hold the lock of the run folder.

    Args:
        address: the address of the store.
        pipeline: name of the pipeline.
        root: absolute path of the folder of artifacts, below which an export has its own folder, like every step.
    """

    def __init__(self, address: Address, pipeline: str, root: Path) -> None:
        self._store = MetadataStore(address.connection_config())
        self._pipeline, self._root = pipeline, root
        self._type = self._store.put_execution_type(mlmd.ExecutionType(name=f"vitpipe.{_NODE}"))
        self._artifact_type = self._store.put_artifact_type(mlmd.ArtifactType(name=EXPORTED))

    @contextlib.contextmanager
    def recorded(self, inputs: Mapping[str, int]) -> Iterator[Output]:
        """Record an export: as running, and as complete when the block ends, or as failed if it raises.

        Args:
            inputs: ids of the artifacts that the export reads, by channel.

        Yields:
            The artifact, whose folder is removed if the block raises.
        """
        self._remove_killed()
        execution = mlmd.Execution(type_id=self._type, last_known_state=mlmd.Execution.RUNNING)
        artifacts = self._store.get_artifacts_by_id([*inputs.values()])
        by_id = {artifact.id: artifact for artifact in artifacts}
        read = [(by_id[number], _event(mlmd.Event.INPUT, channel)) for channel, number in inputs.items()]
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
            written = [(artifact, _event(mlmd.Event.OUTPUT, _CHANNEL))]
            _, [output.artifact], _ = self._store.put_execution(execution, written, [])
        except BaseException as error:
            self._remove(execution.id)
            # An error of the store must not hide the first one. The next export marks this execution as failed.
            with contextlib.suppress(errors.StatusError):
                mark_failed(self._store, execution.id, error=str(error))
            raise

    def _contexts(self) -> list[mlmd.Context]:
        names = {"pipeline": self._pipeline, "node": f"{self._pipeline}.{_NODE}"}
        return [
            mlmd.Context(type_id=self._store.put_context_type(mlmd.ContextType(name=kind)), name=name)
            for kind, name in names.items()
        ]

    def _folder(self, execution: int) -> Path:
        return self._root / _NODE / _CHANNEL / str(execution)

    def _remove(self, execution: int) -> None:
        remove_folder(self._root, _NODE, _CHANNEL, str(execution))

    def _remove_killed(self) -> None:
        """Remove what killed exports left. None is running, because the caller holds the lock."""
        context = self._store.get_context_by_type_and_name("node", f"{self._pipeline}.{_NODE}")
        for execution in self._store.get_executions_by_context(context.id) if context else []:
            if execution.last_known_state == mlmd.Execution.RUNNING:
                self._remove(execution.id)
                mark_failed(self._store, execution.id, error="killed")


def _event(kind: "mlmd.Event.Type", channel: str) -> mlmd.Event:
    event = mlmd.Event(type=kind)
    event.path.steps.add().key = channel
    event.path.steps.add().index = 0
    return event

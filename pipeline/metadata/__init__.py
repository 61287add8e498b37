"""A read model over ML Metadata. Imports neither TensorFlow nor TFX."""

from dataclasses import dataclass
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd


def sqlite(path: Path) -> mlmd.ConnectionConfig:
    """The connection to a store in one file, made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


@dataclass(frozen=True)
class Artifact:
    """An artifact as ML Metadata knows it, properties and custom properties in one."""

    id: int
    type: str
    uri: str
    properties: dict[str, int | float | str]


def outputs(store: MetadataStore, execution_id: int) -> dict[str, list[Artifact]]:
    """What an execution put out, by output name; a cached execution has the outputs it took over."""
    events = [
        event
        for event in store.get_events_by_execution_ids([execution_id])
        if event.type in (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
    ]
    artifacts = {
        artifact.id: _view(artifact) for artifact in store.get_artifacts_by_id([e.artifact_id for e in events])
    }
    named: dict[str, list[Artifact]] = {}
    for event in events:
        named.setdefault(event.path.steps[0].key, []).append(artifacts[event.artifact_id])
    return named


def _view(artifact: mlmd.Artifact) -> Artifact:
    values = [*artifact.properties.items(), *artifact.custom_properties.items()]
    return Artifact(
        id=artifact.id,
        type=artifact.type,
        uri=artifact.uri,
        properties={name: getattr(value, value.WhichOneof("value")) for name, value in values},
    )

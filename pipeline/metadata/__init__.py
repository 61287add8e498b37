"""A read model over ML Metadata. Imports neither TensorFlow nor TFX."""

from dataclasses import dataclass
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

# Context types as TFX names them.
_RUN, _PIPELINE, _NODE = "pipeline_run", "pipeline", "node"


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
    created_ms: int
    properties: dict[str, int | float | str]


def pipeline_of(store: MetadataStore, run_id: str) -> str | None:
    """The pipeline that a run is one of; None where the store has no such run, or nothing was executed in it."""
    run = store.get_context_by_type_and_name(_RUN, run_id)
    # Each of its executions is in the contexts of its run, its pipeline and its node.
    for execution in store.get_executions_by_context(run.id)[:1] if run else []:
        return next(found.name for found in store.get_contexts_by_execution(execution.id) if found.type == _PIPELINE)
    return None


def execution_id(store: MetadataStore, pipeline: str, run_id: str, node: str) -> int | None:
    """The newest execution of a node in a run; None where it has none: it was skipped, or its turn never came."""
    contexts = [
        store.get_context_by_type_and_name(type_name, name)
        for type_name, name in ((_RUN, run_id), (_NODE, f"{pipeline}.{node}"))
    ]
    if None in contexts:
        return None
    in_run, of_node = ({found.id for found in store.get_executions_by_context(context.id)} for context in contexts)
    return max(in_run & of_node, default=None)


def facts(store: MetadataStore, run_id: str) -> dict[str, str]:
    """What a run recorded of itself: code version, digests, settings as JSON, trigger, reason."""
    run = store.get_context_by_type_and_name(_RUN, run_id)
    return {name: value.string_value for name, value in run.custom_properties.items()}


def record(store: MetadataStore, run_id: str, **facts: str) -> None:
    """Add to what a run recorded of itself."""
    run = store.get_context_by_type_and_name(_RUN, run_id)
    for name, value in facts.items():
        run.custom_properties[name].string_value = value
    store.put_contexts([run])


def annotate(store: MetadataStore, artifact_id: int, **properties: int | str) -> None:
    """Set custom properties of an artifact."""
    [artifact] = store.get_artifacts_by_id([artifact_id])
    for name, value in properties.items():
        if isinstance(value, int):
            artifact.custom_properties[name].int_value = value
        else:
            artifact.custom_properties[name].string_value = value
    store.put_artifacts([artifact])


def run_ids(store: MetadataStore) -> list[str]:
    """Every run of the store, oldest first."""
    runs = store.get_contexts_by_type(_RUN)
    return [run.name for run in sorted(runs, key=lambda run: run.create_time_since_epoch)]


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
        created_ms=artifact.create_time_since_epoch,
        properties={name: getattr(value, value.WhichOneof("value")) for name, value in values},
    )

"""Writer of a store through ml-metadata's own interface: all records that are written in addition to TFX's own."""

import json

from ml_metadata import MetadataStore as MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.metadata.relocation import FIRST_PLACES


def execution_id(store: MetadataStore, pipeline: str, run_id: str, node: str) -> int | None:
    """The newest execution of a node in a run; None where it has none: it was skipped, or its turn never came."""
    contexts = [
        store.get_context_by_type_and_name(type_name, name)
        for type_name, name in (("pipeline_run", run_id), ("node", f"{pipeline}.{node}"))
    ]
    if None in contexts:
        return None
    in_run, of_node = ({found.id for found in store.get_executions_by_context(context.id)} for context in contexts)
    return max(in_run & of_node, default=None)


def first_places(store: MetadataStore, pipeline: str) -> dict[str, str]:
    """Return the first path of each folder that was moved since, by its current path."""
    context = store.get_context_by_type_and_name("pipeline", pipeline)
    if context is None or FIRST_PLACES not in context.custom_properties:
        return {}
    places: dict[str, str] = json.loads(context.custom_properties[FIRST_PLACES].string_value)
    return places


def record(store: MetadataStore, run_id: str, **facts: str) -> None:
    """Add to what a run recorded of itself."""
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    for name, value in facts.items():
        run.custom_properties[name].string_value = value
    store.put_contexts([run])


def forget(store: MetadataStore, run_id: str, fact: str) -> bool:
    """Take back what a run recorded of itself; False where it had not."""
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    if fact not in run.custom_properties:
        return False
    del run.custom_properties[fact]
    store.put_contexts([run])
    return True


def mark_failed(store: MetadataStore, execution: int, **properties: str) -> None:
    """Say that an execution failed, where it has not ended otherwise, and what is to be known of it."""
    [found] = store.get_executions_by_id([execution])
    if found.last_known_state in (mlmd.Execution.NEW, mlmd.Execution.RUNNING):
        found.last_known_state = mlmd.Execution.FAILED
    for name, value in properties.items():
        found.custom_properties[name].string_value = value
    store.put_executions([found])


def annotate(store: MetadataStore, artifact_id: int, **properties: int | str) -> None:
    """Set custom properties of an artifact."""
    [artifact] = store.get_artifacts_by_id([artifact_id])
    for name, value in properties.items():
        if isinstance(value, int):
            artifact.custom_properties[name].int_value = value
        else:
            artifact.custom_properties[name].string_value = value
    store.put_artifacts([artifact])


def mark_for_deletion(store: MetadataStore, artifact_ids: list[int]) -> None:
    """Say that the files of artifacts are about to go: TFX's cache then passes over them."""
    _set_state(store, artifact_ids, mlmd.Artifact.MARKED_FOR_DELETION)


def mark_deleted(store: MetadataStore, artifact_ids: list[int]) -> None:
    """Say that the files of artifacts are gone."""
    _set_state(store, artifact_ids, mlmd.Artifact.DELETED)


def _set_state(store: MetadataStore, artifact_ids: list[int], state: int) -> None:
    artifacts = store.get_artifacts_by_id(artifact_ids)
    for artifact in artifacts:
        artifact.state = state
    store.put_artifacts(artifacts)

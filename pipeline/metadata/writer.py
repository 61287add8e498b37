"""Writer of a store through ml-metadata's own interface, for all records that TFX does not write itself."""

import json

from ml_metadata import MetadataStore as MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.metadata.relocation import FIRST_PLACES


def execution_id(store: MetadataStore, pipeline: str, run_id: str, node: str) -> int | None:
    """Return the id of the newest execution of a node in a run.

    Args:
        store: the store.
        pipeline: name of the pipeline.
        run_id: id of the run.
        node: id of the node.

    Returns:
        The id; None if the node was skipped or has not been launched.
    """
    run, of_node = (
        store.get_context_by_type_and_name(type_name, name)
        for type_name, name in (("pipeline_run", run_id), ("node", f"{pipeline}.{node}"))
    )
    if run is None or of_node is None:
        return None
    # The node has an execution in each run, so those of the run are fewer.
    for execution in sorted((execution.id for execution in store.get_executions_by_context(run.id)), reverse=True):
        if any(context.id == of_node.id for context in store.get_contexts_by_execution(execution)):
            return int(execution)
    return None


def first_places(store: MetadataStore, pipeline: str) -> dict[str, str]:
    """Return for the current path of each moved folder its path at the first run.

    Args:
        store: the store.
        pipeline: name of the pipeline.
    """
    context = store.get_context_by_type_and_name("pipeline", pipeline)
    if context is None or FIRST_PLACES not in context.custom_properties:
        return {}
    places: dict[str, str] = json.loads(context.custom_properties[FIRST_PLACES].string_value)
    return places


def record(store: MetadataStore, run_id: str, **facts: str) -> None:
    """Add facts to the record of a run.

    Args:
        store: the store.
        run_id: id of the run.
        **facts: the facts, by name.
    """
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    for name, value in facts.items():
        run.custom_properties[name].string_value = value
    store.put_contexts([run])


def remove_fact(store: MetadataStore, run_id: str, fact: str) -> bool:
    """Remove a fact from the record of a run.

    Args:
        store: the store.
        run_id: id of the run.
        fact: name of the fact.

    Returns:
        True if the run had recorded the fact.
    """
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    if fact not in run.custom_properties:
        return False
    del run.custom_properties[fact]
    store.put_contexts([run])
    return True


def mark_failed(store: MetadataStore, execution: int, **properties: str) -> None:
    """Mark an execution as failed, unless it has already ended, and set custom properties of it.

    Args:
        store: the store.
        execution: id of the execution.
        **properties: the properties to set, in any case.
    """
    [record_of_execution] = store.get_executions_by_id([execution])
    if record_of_execution.last_known_state in (mlmd.Execution.NEW, mlmd.Execution.RUNNING):
        record_of_execution.last_known_state = mlmd.Execution.FAILED
    for name, value in properties.items():
        record_of_execution.custom_properties[name].string_value = value
    store.put_executions([record_of_execution])


def annotate(store: MetadataStore, artifact_id: int, **properties: int | str) -> None:
    """Set custom properties of an artifact.

    Args:
        store: the store.
        artifact_id: id of the artifact.
        **properties: the properties to set.
    """
    [artifact] = store.get_artifacts_by_id([artifact_id])
    for name, value in properties.items():
        if isinstance(value, int):
            artifact.custom_properties[name].int_value = value
        else:
            artifact.custom_properties[name].string_value = value
    store.put_artifacts([artifact])


def mark_for_deletion(store: MetadataStore, artifact_ids: list[int]) -> None:
    """Mark artifacts whose files will be removed, so that TFX's cache no longer uses them.

    Args:
        store: the store.
        artifact_ids: ids of the artifacts.
    """
    _set_state(store, artifact_ids, mlmd.Artifact.MARKED_FOR_DELETION)


def mark_deleted(store: MetadataStore, artifact_ids: list[int]) -> None:
    """Mark artifacts whose files have been removed.

    Args:
        store: the store.
        artifact_ids: ids of the artifacts.
    """
    _set_state(store, artifact_ids, mlmd.Artifact.DELETED)


def _set_state(store: MetadataStore, artifact_ids: list[int], state: int) -> None:
    artifacts = store.get_artifacts_by_id(artifact_ids)
    for artifact in artifacts:
        artifact.state = state
    store.put_artifacts(artifacts)

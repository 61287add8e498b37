"""Lookup of the records that a node needs from the store, in one query each.

TFX 1.21 filters executions by contexts in a way that ml-metadata 1.21 does not support any more. Without it, TFX reads
all executions of the pipeline several times for each node, a hundred at a time, and ml-metadata sorts them again for
each hundred. With 100,000 executions, this takes most of a minute for each node.
"""

import contextlib
from collections.abc import Iterable, Iterator

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import types
from tfx.orchestration import metadata, mlmd_connection_manager
from tfx.orchestration.portable.input_resolution import channel_resolver
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import artifact_utils

from pipeline.metadata.address import Address, connect

_OUTPUT = (mlmd.Event.DECLARED_OUTPUT, mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
_IN_CONTEXT = "EXISTS (SELECT 1 FROM Association o WHERE o.context_id = ? AND o.execution_id = a.execution_id)"


@contextlib.contextmanager
def direct_lookup() -> Iterator[None]:
    """Let TFX find executions and input artifacts by queries of the store's tables."""
    # TFX has no interface for this, so its functions are replaced.
    originals = execution_lib.get_executions_associated_with_all_contexts, channel_resolver.resolve_single_channel
    execution_lib.get_executions_associated_with_all_contexts = _executions
    channel_resolver.resolve_single_channel = _resolve
    try:
        yield
    finally:
        execution_lib.get_executions_associated_with_all_contexts, channel_resolver.resolve_single_channel = originals


def _executions(handle: metadata.Metadata, contexts: Iterable[mlmd.Context]) -> list[mlmd.Execution]:
    ids = execution_ids(Address.of(handle._connection_config), [context.id for context in contexts])
    return list(handle.store.get_executions_by_id(ids)) if ids else []


def _resolve(
    handle_like: mlmd_connection_manager.HandleLike, channel: pipeline_pb2.InputSpec.Channel
) -> list[types.Artifact]:
    handle = mlmd_connection_manager.get_handle(handle_like)
    contexts = [
        channel_resolver._get_context_from_context_query(handle.store, query) for query in channel.context_queries
    ]
    if None in contexts:
        return []
    ids = output_ids(
        Address.of(handle._connection_config),
        [context.id for context in contexts],
        channel.artifact_query.type.name,
        channel.output_key,
    )
    if not ids:
        return []
    artifacts, artifact_type = channel_resolver._filter_by_artifact_query(
        handle.store, handle.store.get_artifacts_by_id(ids), channel.artifact_query
    )
    return list(artifact_utils.deserialize_artifacts(artifact_type, artifacts))


def execution_ids(address: Address, contexts: list[int]) -> list[int]:
    """Return the sorted ids of the executions that belong to all of some contexts.

    Args:
        address: the store.
        contexts: ids of the contexts. Without contexts, there are no executions.
    """
    if not contexts:
        return []
    newest, others = _divide(contexts)
    conditions = ["a.context_id = ?", *(_IN_CONTEXT for _ in others)]
    query = f"SELECT a.execution_id FROM Association a WHERE {' AND '.join(conditions)} ORDER BY a.execution_id"
    with connect(address) as store:
        return [id for (id,) in store.rows(query, newest, *others)]


def output_ids(address: Address, contexts: list[int], type_name: str, key: str) -> list[int]:
    """Return the sorted ids of the output artifacts of executions.

    Args:
        address: the store.
        contexts: ids of contexts to which the executions belong. Without contexts, there are no executions.
        type_name: type of the artifacts.
        key: name of the output; empty for all outputs.
    """
    if not contexts:
        return []
    newest, others = _divide(contexts)
    has_key = ["EXISTS (SELECT 1 FROM EventPath k WHERE k.event_id = e.id AND k.step_key = ?)"] if key else []
    conditions = ["a.context_id = ?", "t.name = ?", *has_key, *(_IN_CONTEXT for _ in others)]
    query = f"""
        SELECT DISTINCT r.id FROM Association a
        JOIN Event e ON e.execution_id = a.execution_id AND e.type IN (?)
        JOIN Artifact r ON r.id = e.artifact_id
        JOIN Type t ON t.id = r.type_id
        WHERE {" AND ".join(conditions)} ORDER BY r.id"""
    with connect(address) as store:
        values = [_OUTPUT, newest, type_name, *([key] if key else []), *others]
        return [id for (id,) in store.rows(query, *values)]


def _divide(contexts: list[int]) -> tuple[int, list[int]]:
    """Return the newest context, from which a query starts, and the others.

    The newest one usually has the fewest executions: most runs are newer than the nodes, which are newer than the
    pipeline.
    """
    newest, *others = sorted(contexts, reverse=True)
    return newest, others

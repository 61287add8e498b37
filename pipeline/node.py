"""Launch one node of the compiled graph and report its real outcome, for the local runner and the cluster."""

import logging
import sys
import time
import traceback
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2

from components.errors import DataRefused, EngineError, VitpipeError
from pipeline import beam
from pipeline.cache_keys import lasting_keys
from pipeline.error_messages import disk_full_message, is_disk_full
from pipeline.metadata.garbage import remove_folder
from pipeline.metadata.records import RESOLVER
from pipeline.metadata.writer import execution_id, first_places, mark_failed
from pipeline.metadata_lookup import direct_lookup
from pipeline.outcome import REFUSED, NodeState, Outcome

log = logging.getLogger(__name__)


def launch(ir: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig) -> Outcome:
    """Run one node of the graph.

    An exception of the node is not raised: it becomes an outcome with the state FAILED, and its traceback is logged. If
    the process is asked to end, the node is marked as failed in the store first. Launching a node again in the same run
    runs it again if it was killed or failed, and leaves it alone if it is complete.

    Args:
        ir: the compiled graph, with its runtime parameters already bound, see `pipeline.registration`.
        node_id: id of the node.
        connection: the store of ML Metadata.

    Returns:
        The outcome, as the store recorded it.

    Raises:
        ValueError: if the graph has no such node.
        SystemExit: if the process is asked to end.
    """
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}
    if node_id not in nodes:
        raise ValueError(f"no node {node_id} in the graph; it has {', '.join(nodes)}")
    run_id = ir.runtime_spec.pipeline_run_id.field_value.string_value
    if _skipped_before(nodes, node_id, ir.pipeline_info.id, run_id, connection):
        return Outcome(node_id, NodeState.SKIPPED, 0.0)
    _clear_attempt(ir, node_id, run_id, connection)
    with metadata.Metadata(connection) as handle:
        places = first_places(handle.store, ir.pipeline_info.id)
    deployment = runner_utils.extract_local_deployment_config(ir)
    executor_spec = runner_utils.extract_executor_spec(deployment, node_id)
    started = time.monotonic()
    arguments = sys.argv
    sys.argv = arguments[:1]  # TFX's executors would read the other arguments as their own flags
    try:
        with lasting_keys(places), direct_lookup():
            info = launcher.Launcher(
                pipeline_node=nodes[node_id],
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=ir.pipeline_info,
                pipeline_runtime_spec=ir.runtime_spec,
                executor_spec=executor_spec,
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            ).launch()
    except SystemExit:
        with metadata.Metadata(connection) as handle:
            if (stopped := execution_id(handle.store, ir.pipeline_info.id, run_id, node_id)) is not None:
                mark_failed(handle.store, stopped)
        raise
    except Exception as error:
        log.exception("%s failed", node_id)
        seconds = time.monotonic() - started
        is_beam = isinstance(executor_spec, executable_spec_pb2.BeamExecutableSpec)
        error = beam.explain(error, executor_spec.beam_pipeline_args if is_beam else ())
        refused = isinstance(error, DataRefused)
        failed = None
        try:
            with metadata.Metadata(connection) as handle:
                # TFX leaves an execution in the state "running" if its driver raised the exception.
                if (failed := execution_id(handle.store, ir.pipeline_info.id, run_id, node_id)) is not None:
                    # TFX does not store the message, and the report shows it.
                    mark_failed(handle.store, failed, **{REFUSED: str(error)} if refused else {})
        except Exception:  # the store may be on a disk that is full
            log.exception("cannot record that %s failed", node_id)
        if refused:
            return Outcome(node_id, NodeState.FAILED, seconds, failed, str(error), data_refused=True)
        if isinstance(error, EngineError):
            return Outcome(node_id, NodeState.FAILED, seconds, failed, str(error), engine_failed=True)
        root = Path(ir.runtime_spec.pipeline_root.field_value.string_value)
        message = f"{_message(error)}; {disk_full_message(root)}" if is_disk_full(error) else _message(error)
        return Outcome(node_id, NodeState.FAILED, seconds, failed, message)
    finally:
        sys.argv = arguments
    seconds = time.monotonic() - started
    if info is None or info.execution_id is None:
        return Outcome(node_id, NodeState.SKIPPED, seconds)
    # The launcher also returns if the inputs did not resolve, so the state comes from the store.
    with metadata.Metadata(connection) as handle:
        [execution] = handle.store.get_executions_by_id([info.execution_id])
    match execution.last_known_state:
        case mlmd.Execution.COMPLETE:
            return Outcome(node_id, NodeState.COMPLETE, seconds, execution.id)
        case mlmd.Execution.CACHED:
            return Outcome(node_id, NodeState.CACHED, seconds, execution.id)
        case state:
            name = mlmd.Execution.State.Name(state)
            return Outcome(
                node_id, NodeState.FAILED, seconds, execution.id, f"the execution is {name}: its inputs did not resolve"
            )


def _skipped_before(
    nodes: dict[str, pipeline_pb2.PipelineNode],
    node_id: str,
    pipeline: str,
    run_id: str,
    connection: mlmd.ConnectionConfig,
) -> bool:
    """Return whether an input of a node comes from a conditional node that was skipped in this run.

    TFX resolves the inputs of a node before it evaluates the conditions, so it would fail the node instead of skipping
    it. A node that only runs after a skipped node, without an input from it, is not skipped.
    """
    producers = {
        channel.producer_node_query.id for spec in nodes[node_id].inputs.inputs.values() for channel in spec.channels
    }
    conditional = [name for name in producers & nodes.keys() if nodes[name].inputs.conditionals]
    if not conditional:
        return False
    with metadata.Metadata(connection) as handle:
        return any(execution_id(handle.store, pipeline, run_id, name) is None for name in conditional)


def _clear_attempt(ir: pipeline_pb2.Pipeline, node_id: str, run_id: str, connection: mlmd.ConnectionConfig) -> None:
    """Clean up after an earlier attempt at a node: TFX reuses the execution, with the files in its folders."""
    with metadata.Metadata(connection) as handle:
        if (earlier := execution_id(handle.store, ir.pipeline_info.id, run_id, node_id)) is None:
            return
        [execution] = handle.store.get_executions_by_id([earlier])
        if execution.last_known_state not in (mlmd.Execution.NEW, mlmd.Execution.RUNNING, mlmd.Execution.FAILED):
            return
        if execution.type == RESOLVER:  # each attempt at a resolver is a new execution
            mark_failed(handle.store, earlier)
            return
        log.info("another attempt at execution %d", earlier)
        root = Path(ir.runtime_spec.pipeline_root.field_value.string_value)
        for leftover in (root / node_id).glob(f"*/{earlier}"):
            remove_folder(root, node_id, leftover.parent.name, leftover.name)
        execution.last_known_state = mlmd.Execution.RUNNING
        execution.custom_properties.pop(REFUSED, None)
        handle.store.put_executions([execution])


def _message(error: Exception) -> str:
    """Return the message of the innermost cause or of our own error, because Beam and TFX wrap it in pages of text."""
    seen: list[Exception] = []
    while isinstance(error.__cause__, Exception) and not isinstance(error, VitpipeError) and error not in seen:
        seen.append(error)
        error = error.__cause__
    return traceback.format_exception_only(error)[-1].strip().splitlines()[0]

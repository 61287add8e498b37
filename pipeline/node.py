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
from tfx.proto.orchestration import pipeline_pb2

from components.errors import DataRefused
from pipeline.cache_keys import as_first_recorded
from pipeline.error_messages import full, is_full
from pipeline.metadata.garbage import remove_folder
from pipeline.metadata.records import RESOLVER
from pipeline.metadata.writer import execution_id, first_places, mark_failed
from pipeline.outcome import REFUSED, NodeState, Outcome

log = logging.getLogger(__name__)


def launch(ir: pipeline_pb2.Pipeline, node_id: str, connection: mlmd.ConnectionConfig) -> Outcome:
    """Run one node, its runtime parameters already bound, against the store at `connection`.

    Never raises for what the node does: an exception of its executor is a FAILED outcome, its trace in the log. Asked
    to end (SystemExit), it says in the store that the node failed, and ends. Launched again in the same run, a node
    that was killed or failed is run anew, and one that is complete stays so.
    Raises ValueError when the graph has no such node.
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
    started = time.monotonic()
    arguments = sys.argv
    sys.argv = arguments[:1]  # TFX's executors take the rest for flags of their own
    try:
        with as_first_recorded(places):
            info = launcher.Launcher(
                pipeline_node=nodes[node_id],
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=ir.pipeline_info,
                pipeline_runtime_spec=ir.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
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
        refused = isinstance(error, DataRefused)
        failed = None
        try:
            with metadata.Metadata(connection) as handle:
                # What a driver raises leaves the execution running, as TFX has it.
                if (failed := execution_id(handle.store, ir.pipeline_info.id, run_id, node_id)) is not None:
                    # An execution keeps no message, and a report is to have this one.
                    mark_failed(handle.store, failed, **{REFUSED: str(error)} if refused else {})
        except Exception:  # the disk of the store may be full, too
            log.exception("cannot record that %s failed", node_id)
        if refused:
            return Outcome(node_id, NodeState.FAILED, seconds, failed, str(error), data_refused=True)
        root = Path(ir.runtime_spec.pipeline_root.field_value.string_value)
        message = f"{_message(error)}; {full(root)}" if is_full(error) else _message(error)
        return Outcome(node_id, NodeState.FAILED, seconds, failed, message)
    finally:
        sys.argv = arguments
    seconds = time.monotonic() - started
    if info is None or info.execution_id is None:
        return Outcome(node_id, NodeState.SKIPPED, seconds)
    # The launcher also returns when the inputs did not resolve; only the store knows.
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
    """Whether a conditional node that this one has inputs of was skipped in this run: it then has no execution.

    TFX resolves the inputs of a node before it looks at its conditions, and would fail the node for want of them. A
    node that only comes after another, and takes nothing of it, is not skipped with it.
    """
    makers = {
        channel.producer_node_query.id for spec in nodes[node_id].inputs.inputs.values() for channel in spec.channels
    }
    conditional = [name for name in makers & nodes.keys() if nodes[name].inputs.conditionals]
    if not conditional:
        return False
    with metadata.Metadata(connection) as handle:
        return any(execution_id(handle.store, pipeline, run_id, name) is None for name in conditional)


def _clear_attempt(ir: pipeline_pb2.Pipeline, node_id: str, run_id: str, connection: mlmd.ConnectionConfig) -> None:
    """Make room for another attempt at a node: TFX takes the same execution, and leaves what lies in its folders."""
    with metadata.Metadata(connection) as handle:
        if (earlier := execution_id(handle.store, ir.pipeline_info.id, run_id, node_id)) is None:
            return
        [execution] = handle.store.get_executions_by_id([earlier])
        if execution.last_known_state not in (mlmd.Execution.NEW, mlmd.Execution.RUNNING, mlmd.Execution.FAILED):
            return
        if execution.type == RESOLVER:  # of which each attempt is another execution
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
    """The last line of the innermost cause: Beam and TFX wrap an error in pages of their own."""
    seen: list[Exception] = []
    while isinstance(error.__cause__, Exception) and error not in seen:
        seen.append(error)
        error = error.__cause__
    return traceback.format_exception_only(error)[-1].strip().splitlines()[0]

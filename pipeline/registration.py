"""Registration of a run in ML Metadata before its first node is launched."""

from collections.abc import Mapping

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.orchestration.portable.mlmd import common_utils, context_lib
from tfx.proto.orchestration import pipeline_pb2

from pipeline.metadata.writer import record


def register(
    ir: pipeline_pb2.Pipeline, run_id: str, facts: Mapping[str, str], connection: mlmd.ConnectionConfig
) -> None:
    """Bind the graph to a run, create the types and contexts that its nodes need, and record the facts of the run.

    Types are created here because nodes that start at the same moment would each create them.

    Args:
        ir: the compiled graph, whose runtime parameters are replaced in place.
        run_id: id of the run.
        facts: facts of the run, by name.
        connection: the store of ML Metadata.
    """
    runtime_parameter_utils.substitute_runtime_parameter(ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    with metadata.Metadata(connection) as handle:
        for entry in ir.nodes:
            node = entry.pipeline_node
            context_lib.prepare_contexts(handle, node.contexts)
            common_utils.register_type_if_not_exist(handle, node.node_info.type)
            for output in node.outputs.outputs.values():
                common_utils.register_type_if_not_exist(handle, output.artifact_spec.type)
        record(handle.store, run_id, **facts)

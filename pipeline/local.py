"""Run the graph on this machine with TFX's LocalDagRunner, one node after the other."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.orchestration.portable.mlmd import context_lib
from tfx.proto.orchestration import pipeline_pb2

from pipeline import node
from pipeline.logs import redirected
from pipeline.report import NODE as REPORT


def new_run_id() -> str:
    """Unique, sorts by time, and made of what a cluster accepts in a name."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass
class Runner(LocalDagRunner):
    """LocalDagRunner whose nodes go through `node.launch`.

    It stops at the first node that fails; only where the data were refused there is still a report. It writes a log
    file a node, and keeps the facts of the run where they can be asked for: as properties of the run in ML Metadata.
    """

    run_id: str
    connection: mlmd.ConnectionConfig = field(repr=False)  # a password is in it
    logs: Path
    facts: dict[str, str]
    started: Callable[[str], None]
    ended: Callable[[node.Outcome], None]
    outcomes: list[node.Outcome] = field(default_factory=list)

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None) -> None:
        if run_options:
            raise NotImplementedError("a part of the graph: run all of it, the cache skips what is there")
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self.run_id}
        )
        nodes = [entry.pipeline_node for entry in pipeline.nodes]
        with metadata.Metadata(self.connection) as handle:
            _record_facts(handle, nodes[0], self.facts)
        refused = False
        for pipeline_node in nodes:
            name = pipeline_node.node_info.id
            if refused and name != REPORT:
                continue
            self.started(name)
            with redirected(self.logs / f"{name}.log"):
                outcome = node.launch(pipeline, name, self.connection)
            self.outcomes.append(outcome)
            self.ended(outcome)
            if outcome.state is node.State.FAILED:
                if not outcome.data_refused:
                    break
                refused = True


def _record_facts(handle: metadata.Metadata, pipeline_node: pipeline_pb2.PipelineNode, facts: dict[str, str]) -> None:
    """Create the run's context, as its first node would, and put the facts in it."""
    context_lib.prepare_contexts(handle, pipeline_node.contexts)
    for spec in pipeline_node.contexts.contexts:
        if spec.type.name == constants.PIPELINE_RUN_CONTEXT_TYPE_NAME:
            run_id = spec.name.field_value.string_value
            context = handle.store.get_context_by_type_and_name(spec.type.name, run_id)
            for name, value in facts.items():
                context.custom_properties[name].string_value = value
            handle.store.put_contexts([context])

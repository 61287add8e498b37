"""Run the graph on this machine with TFX's LocalDagRunner, one node after the other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.proto.orchestration import pipeline_pb2

from pipeline import node
from pipeline.console.logs import redirected
from pipeline.outcome import REPORT, NodeState, Outcome
from pipeline.registration import register


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
    ended: Callable[[Outcome], None]
    outcomes: list[Outcome] = field(default_factory=list)

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None) -> None:
        if run_options:
            raise NotImplementedError("a part of the graph: run all of it, the cache skips what is there")
        register(pipeline, self.run_id, self.facts, self.connection)
        refused = False
        for entry in pipeline.nodes:
            name = entry.pipeline_node.node_info.id
            if refused and name != REPORT:
                continue
            self.started(name)
            with redirected(self.logs / f"{name}.log"):
                outcome = node.launch(pipeline, name, self.connection)
            self.outcomes.append(outcome)
            self.ended(outcome)
            if outcome.state is NodeState.FAILED:
                if not outcome.data_refused:
                    break
                refused = True

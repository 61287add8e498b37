"""Runner of the graph on this machine, on top of TFX's LocalDagRunner."""

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
    """LocalDagRunner that launches the nodes in order with `node.launch`.

    It stops at the first node that fails. If a node failed because the data was refused, the report is still written.
    If the engine of the Beam jobs failed, the node is launched again.

    Args:
        run_id: id of the run.
        connection: the store of ML Metadata.
        logs: folder for the log files, one for each node.
        facts: facts of the run, recorded in ML Metadata before the first node.
        started: called with the id of each node before it is launched.
        ended: called with the outcome of each node.
        attempts: number of times that a node is launched if the engine fails.
        repeated: called with a message before a node is launched again.
        outcomes: the outcomes so far, in order.
    """

    run_id: str
    connection: mlmd.ConnectionConfig = field(repr=False)  # it contains a password
    logs: Path
    facts: dict[str, str]
    started: Callable[[str], None]
    ended: Callable[[Outcome], None]
    attempts: int
    repeated: Callable[[str], None]
    outcomes: list[Outcome] = field(default_factory=list)

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None) -> None:
        """Run all nodes of a compiled graph.

        Args:
            pipeline: the compiled graph.
            run_options: not supported; an argument of the base class for partial runs.

        Raises:
            NotImplementedError: if `run_options` are given.
        """
        if run_options:
            raise NotImplementedError(
                "partial runs are not supported: run the whole graph; finished steps come from the cache"
            )
        register(pipeline, self.run_id, self.facts, self.connection)
        refused = False
        for entry in pipeline.nodes:
            name = entry.pipeline_node.node_info.id
            if refused and name != REPORT:
                continue
            self.started(name)
            for attempt in range(1, self.attempts + 1):
                with redirected(self.logs / f"{name}.log"):
                    outcome = node.launch(pipeline, name, self.connection)
                if not outcome.engine_failed or attempt == self.attempts:
                    break
                self.repeated(f"  attempt {attempt} of {self.attempts} failed: {outcome.error}. Trying again")
            self.outcomes.append(outcome)
            self.ended(outcome)
            if outcome.state is NodeState.FAILED:
                if not outcome.data_refused:
                    break
                refused = True

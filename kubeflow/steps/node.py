"""`python -m kubeflow.steps.node NODE`: run one node of the graph with TFX's launcher.

The exit code is 0 if the node is complete, cached or skipped, 3 if it refused the data, 1 if it failed, and 143 if
SIGTERM ended it, for example because its machine is drained. Kubernetes kills the pod soon after SIGTERM, so nothing
depends on what the step does then: when it is started again, it continues its work.
"""

import json
import signal
import sys
from collections import deque
from pathlib import Path

from components.errors import Exit, StoreError
from kubeflow.steps import step
from pipeline.console.display import Display
from pipeline.console.logs import own_stderr, redirected
from pipeline.metadata.address import Address, check_server
from pipeline.outcome import NodeState
from pipeline.result.run_result import EXIT

_TERMINATED = 128 + signal.SIGTERM
_LAST_LINES = 60  # lines of the log that are shown of a node that failed


def main() -> None:
    """Run the step."""
    parser = step.run_parser(__doc__)
    parser.add_argument("node")
    parser.add_argument("--workers", type=json.loads, help="template of the pods of a training's workers, as JSON")
    arguments = step.parse(parser)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    logs = arguments.folder / "logs" / arguments.run_id
    address = Address.parse(arguments.store)
    try:
        check_server(address)
    except StoreError as error:
        step.end(Exit.CRASHED, str(error))
    log = logs / f"{arguments.node}.log"
    with redirected(log):
        graph = step.read_graph(logs)
    if graph is None:
        step.end(Exit.CRASHED, f"run {arguments.run_id} has not started: {logs / step.GRAPH} is missing")
    with own_stderr() as stderr, redirected(log):
        from pipeline import node
        from pipeline.metadata.writer import MetadataStore, record, remove_fact

        # If the run has recorded an exit code, a user has restarted its failed steps. That code is outdated now.
        store = MetadataStore(address.connection_config())
        restarted = remove_fact(store, arguments.run_id, EXIT)
        if arguments.workers:
            from components.model.workers import launcher
            from kubeflow.steps.workers import ClusterWorkers

            launcher.set(lambda: ClusterWorkers(arguments.workers, arguments.run_id))
        with Display(stderr) as display:
            display.started(arguments.node)
            outcome = node.launch(graph, arguments.node, address.connection_config())
            display.ended(outcome)
    if outcome.state is NodeState.FAILED:
        _show_end(log)
        code = Exit.DATA_REFUSED if outcome.data_refused else Exit.CRASHED
        if restarted:  # Kubeflow does not restart the report, which recorded the exit code the first time
            record(store, arguments.run_id, **{EXIT: str(int(code))})
        problem = "data refused" if outcome.data_refused else f"crashed in {outcome.node}"
        step.end(code, f"the log: {log}", f"{problem}: {outcome.error}")
    step.end(Exit.OK, f"{outcome.node} is {outcome.state}")


def _show_end(log: Path) -> None:
    """Print the end of a log for users who can read the log of the pod, but not the volume."""
    with log.open(errors="replace") as file:
        for line in deque(file, _LAST_LINES):
            print(line, end="")


if __name__ == "__main__":
    main()

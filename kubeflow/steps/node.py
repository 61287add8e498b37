"""`python -m kubeflow.steps.node NODE`: one node of the graph, through TFX's launcher.

Ends with 0 where the node is complete, cached or skipped, 3 where it found the data unfit, 1 where it failed, and 143
where it was asked to end, as on a machine that is drained. In a pod that leaves it a second before it is killed, so
nothing depends on what it does then: started again, it goes on.
"""

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
_LAST_LINES = 60  # of the log of a node that failed


def main() -> None:
    """Run the step."""
    parser = step.run_parser(__doc__)
    parser.add_argument("node")
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

        # If a person has tried failed steps again, the run is running again: its recorded exit code is outdated.
        store = MetadataStore(address.connection_config())
        tried_again = remove_fact(store, arguments.run_id, EXIT)
        with Display(stderr) as display:
            display.started(arguments.node)
            outcome = node.launch(graph, arguments.node, address.connection_config())
            display.ended(outcome)
    if outcome.state is NodeState.FAILED:
        _show_end(log)
        code = Exit.DATA_REFUSED if outcome.data_refused else Exit.CRASHED
        if tried_again:  # kubeflow/steps/report.py has told how the run ended, and does not a second time
            record(store, arguments.run_id, **{EXIT: str(int(code))})
        what = "data refused" if outcome.data_refused else f"crashed in {outcome.node}"
        step.end(code, f"the log: {log}", f"{what}: {outcome.error}")
    step.end(Exit.OK, f"{outcome.node} is {outcome.state}")


def _show_end(log: Path) -> None:
    """For who has the log of the pod and not the volume."""
    with log.open(errors="replace") as file:
        for line in deque(file, _LAST_LINES):
            print(line, end="")


if __name__ == "__main__":
    main()

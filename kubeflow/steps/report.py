"""`python -m kubeflow.steps.report`: write the report of a run. This is the last step, which also runs after a failure.

If the run did not come to a verdict, the step records in ML Metadata how it ended. Then it launches the node RunReport,
and copies the page and the figures to where Kubeflow Pipelines shows them. If RunReport fails, the result of the run
does not change.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import Exit
from kubeflow.steps import step
from pipeline.console.logs import redirected
from pipeline.metadata.address import Address
from pipeline.metadata.garbage import is_own_folder
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Run
from pipeline.metadata.writer import MetadataStore, mark_failed, record
from pipeline.outcome import KILLED, REPORT, NodeState
from pipeline.result.run_result import EXIT, RunResult


def main() -> None:
    """Run the step."""
    parser = step.run_parser(__doc__)
    parser.add_argument("--page", type=Path, required=True, help="file from which Kubeflow reads the report")
    parser.add_argument("--memory", type=json.loads, required=True, help="memory limits of the nodes, as JSON")
    parser.add_argument("--executor-input", required=True, help="message ExecutorInput of Kubeflow Pipelines, as JSON")
    arguments = step.parse(parser)
    logs = arguments.folder / "logs" / arguments.run_id
    address = Address.parse(arguments.store)
    # The first step creates this folder right before it registers the run.
    if not logs.exists() or (run := step.read_run(address, arguments.run_id)) is None:
        step.end(Exit.OK, f"run {arguments.run_id} did not start, so there is nothing to report")
    _record_crash(MetadataStore(address.connection_config()), run, arguments.memory)
    with redirected(logs / f"{REPORT}.log"):
        from pipeline import node

        graph = step.read_graph(logs)
        outcome = node.launch(graph, REPORT, address.connection_config()) if graph else None
    if outcome is None or outcome.state is NodeState.FAILED:
        reason = outcome.error if outcome else f"{logs / step.GRAPH} is missing"
        step.end(Exit.OK, f"warning: there is no report: {reason}; read {logs / REPORT}.log")
    run = step.read_run(address, arguments.run_id)
    assert run is not None
    file = RunResult(run).report
    assert file is not None
    publish(run, file, arguments.page, json.loads(arguments.executor_input))
    step.end(Exit.OK, f"the report: {file}")


def rewrite_report(address: Address, run: Run, folder: Path) -> None:
    """Update the report of a run whose failed steps were restarted. Do nothing if the run has no report.

    Kubeflow Pipelines restarts only steps that failed, so it does not restart the report.

    Args:
        address: the address of the store.
        run: the run, with its new exit code.
        folder: the run folder of the pipeline.
    """
    if (page := run.output(REPORT, "report")) is None:
        return
    from pipeline.report.component import write

    with reader(address) as store:
        # Other pipelines share the store, so its addresses are not trusted: only folders of this pipeline are written.
        folders = [folder / "reports" / run.name]
        if is_own_folder(page.uri, folder.resolve() / "root"):
            folders.append(Path(page.uri))
        write(store, run, folders)


def _record_crash(store: MetadataStore, run: Run, memory: Mapping[str, str]) -> None:
    """Mark executions as failed whose steps were killed, and record an exit code if the run has none.

    All other steps have ended by now, so an execution that is still running in the store was killed.

    Args:
        store: the store.
        run: the run.
        memory: the memory limits of the nodes.
    """
    for execution in run.executions:
        if execution.state in ("new", "running") and execution.node != REPORT:
            mark_failed(store, execution.id, **{KILLED: step.killed(execution.node, memory[execution.node])})
    if EXIT not in run.facts:
        refused = any(outcome.data_refused for outcome in RunResult(run).failures)
        code = Exit.DATA_REFUSED if refused else Exit.CRASHED
        record(store, run.name, **{EXIT: str(int(code))})


def publish(run: Run, page: Path, target: Path, executor_input: dict[str, Any]) -> None:
    """Give Kubeflow Pipelines the page as its artifact `report`, and the figures as its artifact `metrics`.

    Args:
        run: the run.
        page: the page of the report.
        target: the file from which Kubeflow reads the artifact `report`.
        executor_input: the message ExecutorInput of Kubeflow Pipelines' pipeline_spec.proto, as JSON.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page, target)
    outputs = executor_input["outputs"]
    [metrics] = outputs["artifacts"]["metrics"]["artifacts"]
    executor_output = {"artifacts": {"metrics": {"artifacts": [{**metrics, "metadata": figures(run)}]}}}
    file = Path(outputs["outputFile"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(executor_output), "utf-8")


def figures(run: Run) -> dict[str, float]:
    """Return the figures that the model gate measured. Empty if no model was evaluated."""
    candidate = RunResult(run).figures
    if not candidate:
        return {}
    return {
        **{name: candidate[name] for name in ("accuracy", "top_3", "log_loss", "calibration_error")},
        "worst_class_accuracy": min(candidate["class_accuracy"].values()),
    }


if __name__ == "__main__":
    main()

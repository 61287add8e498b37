"""`python -m kubeflow.steps.report`: the last step, whatever became of the ones before it.

It says in ML Metadata how a run ended that did not come to a verdict, launches the node RunReport, and puts the page
and the figures where Kubeflow Pipelines shows them. A RunReport that fails changes nothing in what the run came to.
"""

import json
import shutil
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
from pipeline.outcome import REPORT, NodeState
from pipeline.result.run_result import EXIT, RunResult


def main() -> None:
    """Run the step."""
    parser = step.run_parser(__doc__)
    parser.add_argument("--page", type=Path, required=True, help="where Kubeflow takes the report from")
    parser.add_argument("--executor-input", required=True, help="where it takes the figures from")
    arguments = step.parse(parser)
    logs = arguments.folder / "logs" / arguments.run_id
    address = Address.parse(arguments.store)
    # The first step makes this folder right before it registers the run.
    if not logs.exists() or (run := step.read_run(address, arguments.run_id)) is None:
        step.end(Exit.OK, f"run {arguments.run_id} did not start, so there is nothing to report")
    _end_what_died(MetadataStore(address.connection_config()), run)
    with redirected(logs / f"{REPORT}.log"):
        from pipeline import node

        graph = step.read_graph(logs)
        outcome = node.launch(graph, REPORT, address.connection_config()) if graph else None
    if outcome is None or outcome.state is NodeState.FAILED:
        why = outcome.error if outcome else f"{logs / step.GRAPH} is missing"
        step.end(Exit.OK, f"warning: there is no report: {why}; look in {logs / REPORT}.log")
    run = step.read_run(address, arguments.run_id)
    assert run is not None
    file = RunResult(run).report
    assert file is not None
    publish(run, file, arguments.page, json.loads(arguments.executor_input))
    step.end(Exit.OK, f"the report: {file}")


def write_again(address: Address, run: Run, folder: Path) -> None:
    """What came of steps that a person has had tried again, into the report that there is: nothing where there is none.

    Kubeflow Pipelines tries again what failed, and so not the report.
    """
    if (page := run.output(REPORT, "report")) is None:
        return
    from pipeline.report.component import write

    with reader(address) as store:
        # The report is written where it belongs, and not wherever a shared store says that it is.
        folders = [folder / "reports" / run.name]
        if is_own_folder(page.uri, folder.resolve() / "root"):
            folders.append(Path(page.uri))
        write(store, run, folders)


def _end_what_died(store: MetadataStore, run: Run) -> None:
    """All other steps have ended by now: what still runs in the store was killed, and without a verdict it crashed."""
    for execution in run.executions:
        if execution.state in ("new", "running") and execution.node != REPORT:
            mark_failed(store, execution.id)
    if EXIT not in run.facts:
        refused = any(outcome.data_refused for outcome in RunResult(run).failures)
        code = Exit.DATA_REFUSED if refused else Exit.CRASHED
        record(store, run.name, **{EXIT: str(int(code))})


def publish(run: Run, page: Path, target: Path, executor_input: dict[str, Any]) -> None:
    """Copy the page to where Kubeflow takes the artifact `report` from, and name the figures of `metrics`.

    executor_input: the message ExecutorInput of Kubeflow Pipelines' pipeline_spec.proto, as JSON.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page, target)
    outputs = executor_input["outputs"]
    [metrics] = outputs["artifacts"]["metrics"]["artifacts"]
    told = {"artifacts": {"metrics": {"artifacts": [{**metrics, "metadata": figures(run)}]}}}
    file = Path(outputs["outputFile"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told), "utf-8")


def figures(run: Run) -> dict[str, float]:
    """What the gate measured of the candidate; nothing where no model came so far."""
    candidate = RunResult(run).figures
    if not candidate:
        return {}
    return {
        **{name: candidate[name] for name in ("accuracy", "top_3", "log_loss", "calibration_error")},
        "worst_class_accuracy": min(candidate["class_accuracy"].values()),
    }


if __name__ == "__main__":
    main()

"""`vitpipe runs`: list, inspect, compare and export runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console.duration import duration
from pipeline.console.terminal import Console, json_text, print_json, print_line
from pipeline.metadata import stores
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.records import Artifact, Execution, Run
from pipeline.result.differences import differences
from pipeline.result.listing import Order, check_pipeline, newest
from pipeline.result.listing import list_runs as listing_of_runs
from pipeline.result.run_result import EXIT, PROCESS, RunResult, RunState
from pipeline.result.summary import summarise
from vitpipe.cli.options import Json, Limit, OnlyPipeline, RunName, Runs
from vitpipe.cli.panels import LOOK, example
from vitpipe.cli.tables import local_time, print_rows, print_warnings

app = typer.Typer(
    name="runs", help="List, inspect, compare and export runs.", no_args_is_help=True, rich_help_panel=LOOK
)


@app.command(
    "list",
    rich_help_panel=LOOK,
    epilog=example("vitpipe runs list --limit 5", 'vitpipe runs list --state "not blessed" --since 2026-07-01'),
)
def list_runs(
    pipeline: OnlyPipeline = None,
    state: Annotated[
        RunState | None, typer.Option(metavar="STATE", help=f"Only runs in this state: {', '.join(RunState)}.")
    ] = None,
    blessed: Annotated[bool | None, typer.Option(help="Only runs whose model was blessed, or was not blessed.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME",
            help="Only runs that started at this time or later, such as `2026-07-31` or `2026-07-31T09:30:00`.",
        ),
    ] = None,
    sort: Annotated[
        Order,
        typer.Option(
            metavar="ORDER",
            help="Order: `when` (the newest first), `accuracy` (the most accurate first) or `duration` (the longest "
            "first).",
        ),
    ] = Order.WHEN,
    limit: Limit = 20,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs and their outcomes, the newest first."""
    listing = listing_of_runs(
        runs, pipeline=pipeline, state=state, blessed=blessed, since=since, sort=sort, limit=limit
    )
    print_warnings(listing.problems)
    print_warnings(f"run {summary.run}: {reason}" for summary in listing.runs for reason in summary.unreadable)
    if as_json:
        print_json([summary.as_json() for summary in listing.runs])
        return
    print_rows(
        ("run", "started", "pipeline", "state", "trigger", "span", "code", "accuracy", "blessed", "pushed", "duration"),
        [
            (
                summary.run,
                local_time(summary.started),
                summary.pipeline,
                summary.state,
                summary.trigger or "",
                str(summary.span or ""),
                summary.code_version or "",
                "" if summary.accuracy is None else f"{summary.accuracy:.4f}",
                "" if summary.blessed is None else "yes" if summary.blessed else "no",
                f"version {summary.pushed}" if summary.pushed else "",
                duration(summary.seconds),
            )
            for summary in listing.runs
        ],
    )


@app.command(rich_help_panel=LOOK, epilog=example("vitpipe runs show last"))
def show(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show one run: its nodes with their inputs and outputs, and the facts that it recorded when it started."""
    _, record = stores.find_run(run, runs)
    if as_json:
        print_json(_run_as_json(record))
        return
    result = RunResult(record)
    summary = summarise(result)
    print_line(
        f"run {record.name} of {summary.pipeline}: {summary.state}, started {local_time(record.started)}, "
        f"took {duration(summary.seconds)}"
    )
    for reason in summary.unreadable:
        print_line(f"unreadable: {reason}")
    print_rows(
        ("node", "state", "seconds", "inputs", "outputs"),
        [
            (
                execution.node,
                result.state_of_node(execution),
                f"{execution.seconds:.1f}",
                _channels(execution.inputs),
                _channels(execution.outputs),
            )
            for execution in record.executions
        ],
    )
    for name, value in sorted(record.facts.items()):
        if name not in ("settings", PROCESS, EXIT) and value not in ("", "{}"):
            print_line(f"{name}: {value}")


@app.command(rich_help_panel=LOOK, epilog=example("vitpipe runs diff 20260731-094512-1f2e last"))
def diff(first: RunName, second: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show the differences between two runs: settings, data, code and metrics."""
    (_, left), (_, right) = stores.find_run(first, runs), stores.find_run(second, runs)
    rows = differences(left, right)
    if as_json:
        print_json([{"what": what, left.name: before, right.name: after} for what, before, after in rows])
    elif not rows:
        print_line(f"{left.name} and {right.name} are equal in settings, data, code and metrics")
    else:
        print_rows(("", left.name, right.name), [(what, _text(before), _text(after)) for what, before, after in rows])


class Catalogue(StrEnum):
    """Catalogue of runs that runs can be exported to."""

    MLFLOW = "mlflow"


@app.command(
    rich_help_panel=LOOK, epilog=example("vitpipe runs export > runs.jsonl", "vitpipe runs export --to mlflow")
)
def export(
    to: Annotated[
        Catalogue | None,
        typer.Option(
            metavar="mlflow",
            help="Write the runs to the tracking server that `MLFLOW_TRACKING_URI` names.",
            show_default="standard output",
        ),
    ] = None,
    pipeline: OnlyPipeline = None,
    runs: Runs = Path("runs"),
) -> None:
    """Print every run with all its details as one line of JSON, the newest first.

    For import into another catalogue of runs. With `--to mlflow`, runs are written to a tracking server of MLflow
    instead. Repeat the command to add new runs; runs that the server has are not exported twice.
    """
    check_pipeline(runs, pipeline)
    if to is Catalogue.MLFLOW:
        _export_to_mlflow(pipeline, runs)
        return
    # Lines are printed after the stores are closed. A pager that waits for the user would keep the file locked, and a
    # run would wait to write to it.
    answers, problems = stores.ask_all(
        runs, lambda store: [json_text(_run_as_json(run), indent=None) for run in newest(store, pipeline)]
    )
    print_warnings(problems)
    for _, lines in answers:
        for line in lines:
            print(line)


def _export_to_mlflow(pipeline: str | None, runs: Path) -> None:
    from rich.progress import track

    from vitpipe.mlflow_export import RunRejected, Tracking

    tracking = Tracking()
    # The stores are closed before the server is asked, for the reason above.
    answers, problems = stores.ask_all(runs, lambda store: list(newest(store, pipeline)))
    print_warnings(problems)
    found = [run for _, of_store in answers for run in of_store]
    exported = skipped = 0
    console = Console(stderr=True)
    for run in track(found, "runs exported", console=console, disable=not console.is_terminal):
        try:
            exported += tracking.export(run)
        except (RunRejected, UnreadableError) as error:
            skipped += 1
            print_warnings([f"run {run.name} is not exported: {error}"])
    print_line(f"{exported:,} runs exported, {len(found) - exported - skipped:,} unchanged")


def _run_as_json(run: Run) -> dict[str, Any]:
    """Return the summary and facts of a run, and its executions with their artifacts."""
    result = RunResult(run)
    return {
        **summarise(result).as_json(),
        "facts": {name: value for name, value in run.facts.items() if name != "settings"},
        "settings": result.settings or None,
        "nodes": [_execution_as_json(execution, result) for execution in run.executions],
    }


def _execution_as_json(execution: Execution, result: RunResult) -> dict[str, Any]:
    artifacts = {
        side: {
            name: [{"id": artifact.id, "type": artifact.type, "uri": artifact.uri} for artifact in channel]
            for name, channel in channels.items()
        }
        for side, channels in (("inputs", execution.inputs), ("outputs", execution.outputs))
    }
    return {
        "execution": execution.id,
        "node": execution.node,
        "type": execution.type,
        "state": result.state_of_node(execution),
        "seconds": execution.seconds,
        "properties": dict(execution.properties),
        **artifacts,
    }


def _channels(channels: Mapping[str, Sequence[Artifact]]) -> str:
    return " ".join(
        f"{name}:{','.join(str(artifact.id) for artifact in channel)}" for name, channel in sorted(channels.items())
    )


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

"""`vitpipe runs`: list runs and their outcomes, and compare two of them."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console.duration import duration
from pipeline.console.terminal import json_text, print_json, print_line
from pipeline.metadata import stores
from pipeline.metadata.records import Execution, Run
from pipeline.result.differences import differences
from pipeline.result.listing import Order, check_some_store, newest
from pipeline.result.listing import list_runs as listing_of_runs
from pipeline.result.run_result import EXIT, PROCESS, RunResult, RunState
from pipeline.result.summary import summarise
from vitpipe.cli.options import Json, OnlyPipeline, RunName, Runs
from vitpipe.cli.tables import print_rows, print_warnings, when

app = typer.Typer(help="Runs of a pipeline, from ML Metadata.", no_args_is_help=True)


@app.command("list")
def list_runs(
    pipeline: OnlyPipeline = None,
    state: Annotated[RunState | None, typer.Option(help="Runs in this state only.")] = None,
    blessed: Annotated[bool | None, typer.Option(help="Runs whose model was, or was not, blessed.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Runs that began at this time or later.")] = None,
    sort: Annotated[
        Order, typer.Option(help="What comes first: the newest, the most accurate, the longest.")
    ] = Order.WHEN,
    limit: Annotated[int, typer.Option(min=0, max=1_000_000, help="How many; 0 for all.")] = 20,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Runs, the newest first."""
    listing = listing_of_runs(
        runs, pipeline=pipeline, state=state, blessed=blessed, since=since, sort=sort, limit=limit
    )
    shown = listing.runs
    print_warnings(listing.problems)
    print_warnings(f"run {one.run}: {reason}" for one in shown for reason in one.unreadable)
    if as_json:
        print_json([summary.as_json() for summary in shown])
        return
    print_rows(
        ("run", "when", "pipeline", "state", "trigger", "span", "code", "accuracy", "blessed", "pushed", "took"),
        [
            (
                one.run,
                when(one.started),
                one.pipeline,
                one.state,
                one.trigger or "",
                str(one.span or ""),
                one.code_version or "",
                "" if one.accuracy is None else f"{one.accuracy:.4f}",
                "" if one.blessed is None else "yes" if one.blessed else "no",
                f"version {one.pushed}" if one.pushed else "",
                duration(one.seconds),
            )
            for one in shown
        ],
    )


@app.command()
def show(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """One run: its nodes, what went into them and came out, and what the run recorded of itself."""
    _, found = stores.find_run(run, runs)
    if as_json:
        print_json(_in_full(found))
        return
    result = RunResult(found)
    summary = summarise(result)
    print_line(
        f"run {found.name} of {summary.pipeline}: {summary.state}, began {when(found.started)}, "
        f"took {duration(summary.seconds)}"
    )
    for reason in summary.unreadable:
        print_line(f"unreadable: {reason}")
    print_rows(
        ("node", "state", "seconds", "inputs", "outputs"),
        [
            (
                one.node,
                result.state_of_node(one),
                f"{one.seconds:.1f}",
                _channels(one.inputs),
                _channels(one.outputs),
            )
            for one in found.executions
        ],
    )
    for name, value in sorted(found.facts.items()):
        if name not in ("settings", PROCESS, EXIT) and value not in ("", "{}"):
            print_line(f"{name}: {value}")


@app.command()
def diff(first: RunName, second: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """What two runs differ in: settings, data, code and figures."""
    (_, one), (_, other) = stores.find_run(first, runs), stores.find_run(second, runs)
    rows = differences(one, other)
    if as_json:
        print_json([{"what": what, one.name: left, other.name: right} for what, left, right in rows])
    elif not rows:
        print_line(f"{one.name} and {other.name} are equal in settings, data, code and figures")
    else:
        print_rows(("", one.name, other.name), [(what, _text(left), _text(right)) for what, left, right in rows])


@app.command()
def export(pipeline: OnlyPipeline = None, runs: Runs = Path("runs")) -> None:
    """Every run in full as a line of JSON, the newest first, for other catalogues."""
    check_some_store(runs)
    # Lines are printed after the stores are closed. A pager that waits for the user would keep the file locked, and a
    # run would wait to write to it.
    answers, problems = stores.ask_all(
        runs, lambda store: [json_text(_in_full(run), indent=None) for run in newest(store, pipeline)]
    )
    print_warnings(problems)
    for _, lines in answers:
        for line in lines:
            print(line)


def _in_full(run: Run) -> dict[str, Any]:
    """The summary, the facts, and each execution with its artifacts."""
    result = RunResult(run)
    return {
        **summarise(result).as_json(),
        "facts": {name: value for name, value in run.facts.items() if name != "settings"},
        "settings": result.settings or None,
        "nodes": [_node_in_full(one, result) for one in run.executions],
    }


def _node_in_full(one: Execution, result: RunResult) -> dict[str, Any]:
    sides = {
        side: {
            name: [{"id": artifact.id, "type": artifact.type, "uri": artifact.uri} for artifact in artifacts]
            for name, artifacts in channels.items()
        }
        for side, channels in (("inputs", one.inputs), ("outputs", one.outputs))
    }
    return {
        "execution": one.id,
        "node": one.node,
        "type": one.type,
        "state": result.state_of_node(one),
        "seconds": one.seconds,
        "properties": dict(one.properties),
        **sides,
    }


def _channels(channels: Any) -> str:
    return " ".join(f"{name}:{','.join(str(artifact.id) for artifact in of)}" for name, of in sorted(channels.items()))


def _text(value: object) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

"""`vitpipe run`: the whole graph on this machine."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from components.errors import UsageError
from pipeline.console.logs import display_path, redirected
from pipeline.console.terminal import print_line
from pipeline.result.verdict import verdict
from pipeline.run import Plan, node_names, plan
from pipeline.run import run as run_graph
from pipeline.run_facts import accepted_checks, logs_folder
from pipeline.settings import load, strict_yaml
from vitpipe.cli.options import Accept, Config, Data, DryRun, Overrides, Span
from vitpipe.cli.panels import RUN, example

app = typer.Typer()


@app.command(
    rich_help_panel=RUN,
    epilog=example("vitpipe run", "vitpipe run -c cifar10-cpu --set training.epochs=10"),
)
def run(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    span: Span = None,
    accept: Accept = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why the checks are accepted. Recorded in ML Metadata.")
    ] = "",
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="Run this node even if its result is cached. Repeatable."),
    ] = None,
    dry_run: DryRun = False,
    trigger: Annotated[
        Literal["manual", "span", "drift", "schedule"],
        typer.Option(hidden=True, help="What started the run. `--reason` then says why."),
    ] = "manual",
) -> None:
    """Train a model on this machine, check it, and push it if it passes.

    The last lines of a stopped run say which check stopped it, and why. The exit code is 3 if the data was refused,
    4 if the model was not blessed, and 5 if it failed the serving check.
    """
    data_settings: dict[str, object] = {} if data is None else {"dir": str(data.expanduser())}
    if span is not None:
        data_settings["span"] = span
    settings, checks, flags = load(config, overrides, data=data_settings), accept or [], overrides or []
    if reason and not checks and trigger == "manual":
        raise UsageError(
            '--reason "..." has no effect without --accept CHECK: name the check of the data gate to accept, or leave '
            "--reason out"
        )
    accepted_checks(checks, reason, flag="--")
    if dry_run:
        print_plan(plan(settings, overrides=flags))
        return
    signal.signal(signal.SIGTERM, terminate)
    result = run_graph(settings, accept=checks, reason=reason, force=force or [], trigger=trigger, overrides=flags)
    ending = verdict(result)
    for line in ending.lines:
        print_line(line)
    if ending.node:
        print_line(f"see {display_path(logs_folder(settings, result.name) / ending.node)}.log")
    raise typer.Exit(ending.exit)


def print_plan(planned: Plan) -> None:
    """Print the settings, the store and the nodes of a run."""
    if planned.warm_start:
        print_line(planned.warm_start, sys.stderr)
    with redirected(Path(os.devnull)):
        nodes = node_names(planned.graph())
    print(strict_yaml.dump(json.loads(planned.settings.resolved(planned.span))), end="")
    print_line(f"store: {planned.settings.store}")
    print_line(f"nodes: {', '.join(nodes)}")


def terminate(*_: object) -> NoReturn:
    """Exit on SIGTERM through Python's normal cleanup, so that the running node is recorded as failed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
    sys.exit(128 + signal.SIGTERM)

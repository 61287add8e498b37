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
from vitpipe.cli.options import Config, Data, DryRun, Overrides, Span


def run(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    span: Span = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="A check of the data gate that shall not stop this run.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is accepted: kept in ML Metadata.")] = "",
    force: Annotated[list[str] | None, typer.Option(metavar="NODE", help="Run it whatever the cache holds.")] = None,
    dry_run: DryRun = False,
    trigger: Annotated[
        Literal["manual", "span", "schedule"], typer.Option(hidden=True, help="What started it; --reason is then why.")
    ] = "manual",
) -> None:
    """Train, gate and push on this machine."""
    chosen_data: dict[str, object] = {} if data is None else {"dir": str(data.expanduser())}
    if span is not None:
        chosen_data["span"] = span
    settings, checks, flags = load(config, overrides, data=chosen_data), accept or [], overrides or []
    if reason and not checks and trigger == "manual":
        raise UsageError('--accept CHECK and --reason "..." go together: name the check that shall not stop the run')
    accepted_checks(checks, reason, flag="--")
    if dry_run:
        _print_plan(plan(settings, overrides=flags))
        return
    signal.signal(signal.SIGTERM, _end)
    result = run_graph(settings, accept=checks, reason=reason, force=force or [], trigger=trigger, overrides=flags)
    ending = verdict(result)
    for line in ending.lines:
        print_line(line)
    if ending.node:
        print_line(f"look in {display_path(logs_folder(settings, result.name) / ending.node)}.log")
    raise typer.Exit(ending.exit)


def _print_plan(planned: Plan) -> None:
    if planned.warm_start:
        print_line(planned.warm_start, sys.stderr)
    with redirected(Path(os.devnull)):
        nodes = node_names(planned.graph())
    print(strict_yaml.dump(json.loads(planned.settings.resolved(planned.span))), end="")
    print_line(f"store: {planned.settings.store}")
    print_line(f"nodes: {', '.join(nodes)}")


def _end(*_: object) -> NoReturn:
    """Asked to end: what is open is closed, and the node that runs has failed. Whoever asks twice changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)

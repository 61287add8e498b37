"""`vitpipe bless`: a person overrules the gate."""

from pathlib import Path
from typing import Annotated

import typer

from components.errors import NotServable
from pipeline import blessing
from pipeline.console.logs import display_path
from pipeline.console.terminal import print_line
from vitpipe.cli.options import RunName, Runs


def bless(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Why it may serve all the same: kept in ML Metadata.")],
    runs: Runs = Path("runs"),
) -> None:
    """Bless the model of a run that missed a bound, and push it, if it can be served."""
    try:
        blessed = blessing.bless(run, reason=reason, runs=runs)
    except NotServable as error:  # a verdict, not a failure of the command
        print_line(error)
        raise typer.Exit(error.exit) from None
    if blessed is None:
        print_line(f"nothing to do: the model of run {run} is blessed")
        return
    print_line(f"blessed by a person: {blessed.reason}")
    print_line(f"version {blessed.version} serves: {display_path(blessed.folder)}")

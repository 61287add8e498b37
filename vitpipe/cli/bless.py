"""`vitpipe bless`: a person overrules the model gate."""

from pathlib import Path
from typing import Annotated

import typer

from components.errors import NotServable
from pipeline import blessing
from pipeline.console.logs import display_path
from pipeline.console.terminal import print_line
from vitpipe.cli.options import RunName, Runs
from vitpipe.cli.panels import DEPLOY, example

app = typer.Typer()


@app.command(
    rich_help_panel=DEPLOY,
    epilog=example('vitpipe bless last --reason "0.2 points below the bound, needed for the demo"'),
)
def bless(
    run: RunName,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why the model may serve anyway. Recorded in ML Metadata.")
    ],
    runs: Runs = Path("runs"),
) -> None:
    """Bless the model of a run that missed a bound, and push it if it can be served."""
    try:
        blessed = blessing.bless(run, reason=reason, runs=runs)
    except NotServable as error:  # a verdict on the model: the command itself has not failed
        print_line(error)
        raise typer.Exit(error.exit) from None
    if blessed is None:
        print_line(f"nothing to do: the model of run {run} is already blessed")
        return
    print_line(f"blessed by a person: {blessed.reason}")
    print_line(f"version {blessed.version} serves: {display_path(blessed.folder)}")

"""`vitpipe rollback`: return to an older model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.console.logs import display_path
from pipeline.console.terminal import print_line
from pipeline.rollback import Restored, roll_back
from vitpipe.cli.models import accuracy_text
from vitpipe.cli.options import OnePipeline, Runs
from vitpipe.cli.panels import DEPLOY, example

app = typer.Typer()


@app.command(rich_help_panel=DEPLOY, epilog=example("vitpipe rollback", "vitpipe rollback 3 --pipeline cifar10"))
def rollback(
    version: Annotated[
        int | None,
        typer.Argument(metavar="VERSION", help="Version to return to.", show_default="the previous one"),
    ] = None,
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
) -> None:
    """Push an older model again as the newest version, so that model servers load it.

    Later runs do not push the replaced model again.
    """
    if roll_back(version, pipeline=pipeline, runs=runs, report=_report).earlier:
        print(
            "an earlier rollback that was interrupted had done this already; run the command again to go back further",
            file=sys.stderr,
        )


def _report(restored: Restored) -> None:
    record = restored.record
    accuracy = f", accuracy {accuracy_text(record)}" if accuracy_text(record) else ""
    print_line(
        f"version {record.version} in {display_path(restored.folder)} is version {record.restored_from} again: "
        f"run {record.run_id}{accuracy}"
    )
    sys.stdout.flush()  # the rollback counts as done after this, so the user must have seen it

"""`vitpipe report`: the page of a run, or of two side by side."""

import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from components.errors import NotFound, StoreError
from pipeline.console.logs import display_path
from pipeline.console.terminal import print_json, print_line
from pipeline.metadata.stores import find_run
from pipeline.outcome import REPORT
from pipeline.report import DATA, PAGE
from vitpipe.cli.options import RunName, Runs

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


def report(
    run: RunName,
    other: Annotated[str | None, typer.Argument(metavar="RUN", help="Another one, to compare with.")] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print where the page is.")] = False,
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print what the reports hold, open nothing.")] = False,
) -> None:
    """Open the report of a run, or a page that compares two: figures, curves, and the settings that differ."""
    folder = _folder(run, runs)
    if as_json:
        of_each = [_data(_folder(one, runs) / DATA) for one in (run, other) if one]
        print_json(of_each if other else of_each[0])
        return
    page = folder / PAGE if other is None else _compared(folder, _folder(other, runs))
    print_line(display_path(page))
    # Without a screen Python would take a browser that draws text, over the whole terminal.
    if not no_open and (sys.platform in ("darwin", "win32") or any(map(os.environ.get, _SCREENS))):
        webbrowser.open(page.as_uri())


def _folder(name: str, runs: Path) -> Path:
    """Where the report of a run lies. Raises NotFound where it has none."""
    address, run = find_run(name, runs)
    made = run.output(REPORT, "report")
    folder = address.run_folder(runs, run.pipeline) / "reports" / Path(run.name).name
    if not (folder / PAGE).is_file():
        why = "its files were removed" if made else "it crashed, goes on, or is older than reports"
        raise NotFound(
            f"run {run.name} has no report in {display_path(folder)}: {why}; `vitpipe why {run.name}` says more"
        )
    return folder


def _compared(first: Path, second: Path) -> Path:
    from pipeline.report.comparison import render
    from pipeline.report.model import Report

    page = first / f"against-{second.name}.html"
    page.write_text(render(Report.read(first / DATA), Report.read(second / DATA)), "utf-8")
    return page


def _data(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: invalid JSON or UTF-8
        raise StoreError(
            f"{file} cannot be read ({error}): the report's page in the same folder may be intact"
        ) from None

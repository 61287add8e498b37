"""`vitpipe report`: the page of a run, or of two side by side."""

import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from components.errors import NotFound, StoreError
from pipeline.console.logs import display_path, runs_option
from pipeline.console.terminal import print_json, print_line
from pipeline.metadata.stores import find_run
from pipeline.outcome import REPORT
from pipeline.report import DATA, PAGE
from vitpipe.cli.options import RunName, Runs
from vitpipe.cli.panels import LOOK, example

app = typer.Typer()

_SCREEN_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


@app.command(
    rich_help_panel=LOOK,
    epilog=example("vitpipe report last", "vitpipe report 20260731-094512-1f2e last"),
)
def report(
    run: RunName,
    other: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Second run, to compare the first one with.")
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the path of the page, without opening it in a browser.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of the reports as JSON, without opening a page.")
    ] = False,
) -> None:
    """Open the report of a run, or a page that compares two runs.

    A comparison shows the metrics and curves of both runs, and the settings that differ.
    """
    folder = _folder(run, runs)
    if as_json:
        contents = [_data(_folder(name, runs) / DATA) for name in (run, other) if name]
        print_json(contents if other else contents[0])
        return
    page = folder / PAGE if other is None else _comparison(folder, _folder(other, runs))
    print_line(display_path(page))
    # Without a screen, Python would start a text browser that takes over the terminal.
    if not no_open and (sys.platform in ("darwin", "win32") or any(map(os.environ.get, _SCREEN_VARIABLES))):
        webbrowser.open(page.as_uri())


def _folder(name: str, runs: Path) -> Path:
    """Return the folder of a run's report. Raises NotFound if the run has none."""
    address, run = find_run(name, runs)
    was_written = run.output(REPORT, "report")
    folder = address.run_folder(runs, run.pipeline) / "reports" / Path(run.name).name
    if not (folder / PAGE).is_file():
        why = "its files were removed" if was_written else "the run crashed, is running, or is older than reports"
        raise NotFound(
            f"run {run.name} has no report in {display_path(folder)}: {why}; "
            f"`vitpipe why {run.name}{runs_option(runs)}` says more"
        )
    return folder


def _comparison(first: Path, second: Path) -> Path:
    from pipeline.report.comparison import render
    from pipeline.report.model import Report

    page = first / f"against-{second.name}.html"
    page.write_text(render(Report.read(first / DATA), Report.read(second / DATA)), "utf-8")
    return page


def _data(file: Path) -> object:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: invalid JSON or UTF-8
        raise StoreError(
            f"{file} cannot be read ({error}): the report's page in the same folder may be intact"
        ) from None

"""Tables for a person on a terminal, and lines with tabs for another program."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.measure import Measurement
from rich.table import Table

from pipeline.console.terminal import Console, print_line, printable


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], wrap: bool = False) -> None:
    """Print a table if standard output is a terminal, and lines with tabs without a header otherwise.

    Args:
        columns: Titles of the columns.
        rows: Cells of each row.
        wrap: Break cells into several lines if the terminal is too narrow, except those of the first column.
    """
    if not Console().is_terminal:
        for row in rows:
            print(*map(printable, row), sep="\t")
        return
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(printable(column), no_wrap=not wrap or number == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    if wrap:
        Console().print(table)
    else:
        print_unwrapped(table)


def print_warnings(problems: Iterable[object]) -> None:
    """Print a warning about each problem to standard error, one per line."""
    for problem in problems:
        print_line(f"warning: {problem}", sys.stderr)


def print_unwrapped(picture: RenderableType) -> None:
    """Print a table or tree at its full width, even on a narrower terminal: a shortened run id would be useless."""
    console = Console()
    width = Measurement.get(console, console.options.update(max_width=10_000), picture).maximum
    Console(width=max(console.width, width)).print(picture)


def local_time(moment: datetime) -> str:
    """Return a moment as text, in the local time zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"

"""Tables for a person on a terminal, or lines with tabs for another program."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.measure import Measurement
from rich.table import Table

from pipeline.console.terminal import Console, print_line, printable


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], wrap: bool = False) -> None:
    """Print a table on a terminal, and lines with tabs elsewhere.

    Args:
        columns: Their titles.
        rows: The cells of each row.
        wrap: Whether a cell, except those of the first column, may take several lines of a terminal.
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
        print_whole(table)


def print_warnings(problems: Iterable[object]) -> None:
    """Print warnings about what was left out of an answer to standard error, one per line."""
    for problem in problems:
        print_line(f"warning: {problem}", sys.stderr)


def print_whole(picture: RenderableType) -> None:
    """A table or tree with lines as long as they are, which a narrow terminal wraps: half a run's id is of no use."""
    console = Console()
    width = Measurement.get(console, console.options.update(max_width=10_000), picture).maximum
    Console(width=max(console.width, width)).print(picture)


def when(moment: datetime) -> str:
    """In the time of this place."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"

"""Rows for a person, or for another program."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal, lines with tabs elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            print(*row, sep="\t")
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)

"""`vitpipe study`: compare architectures by measurement."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from components.data.ingest import MAX_SPAN
from pipeline.console.duration import duration
from pipeline.console.logs import display_path, own_stderr
from pipeline.console.terminal import Console, print_json, print_line, printable
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.tables import print_rows
from vitpipe.study.cells import Cell, Place
from vitpipe.study.run import StudyProgress, run_study

if TYPE_CHECKING:
    from vitpipe.study.study import Study

app = typer.Typer(help="Compare architectures by measurement.", no_args_is_help=True)


@app.callback()
def study() -> None:
    """Compare architectures by measurement."""


@app.command("data-regime")
def data_regime(
    data: Annotated[Path, typer.Option(metavar="DIR", help="A data folder that `vitpipe data prepare` wrote.")],
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Backbone of a pretrained ViT, as for `vitpipe finetune --from`; without it, that one is left out.",
        ),
    ] = None,
    budget: Annotated[str, typer.Option(metavar="small|full", help="small: two CPU cores; full: a GPU.")] = "small",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting of the budget.")
    ] = None,
    span: Annotated[
        int | None, typer.Option(min=1, max=MAX_SPAN, help="Number of the span.", show_default="the newest")
    ] = None,
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where cells and page are kept.")] = Path("study"),
    as_json: Json = False,
) -> None:
    """How right each architecture is after training on n images a class, at several n and seeds.

    At one size every architecture takes as many steps with batches as large, under the same augmentation; the test
    split is looked at once, after the last step (or val, with `--set split=val`, to choose settings by). Each cell is
    computed once: the same command goes on where one was stopped.
    """
    with own_stderr() as stderr, _Display(Console(file=stderr, soft_wrap=True)) as progress:
        result = run_study(
            data,
            pretrained=pretrained,
            budget=budget,
            overrides=overrides,
            span=span,
            runs=runs,
            out=out,
            progress=progress,
        )
    found = result.found
    if as_json:
        print_json(found.model_dump(mode="json") | {"page": str(result.page)})
        return
    print_rows(
        (
            "architecture",
            "images a class",
            "accuracy",
            "95 % interval",
            "steps",
            "a cell",
            "parameters",
            "multiply-adds",
        ),
        [
            (
                row.title,
                f"{row.size:,}",
                f"{row.accuracy:.1%}",
                f"{row.interval[0]:.1%} to {row.interval[1]:.1%}" if row.interval else "one seed",
                f"{row.steps:,}",
                duration(row.seconds),
                f"{row.parameters:,}",
                f"{row.multiply_adds / 1e6:,.1f} M",
            )
            for row in found.rows
        ],
    )
    if (seeds := found.settings["seeds"]) > 1:
        print(f"intervals by Student's t over {seeds} seeds", file=sys.stderr)
    print_line(display_path(result.page))


class _Display(StudyProgress):
    """A bar over all cells, by the time they take, on a terminal; a line for each cell there and elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._cells: list[Cell] = []
        self._places: list[Place] = []

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._places and kind is None:
            self._show("done")
        self._bar.stop()

    def line(self, text: str) -> None:
        self._console.print(printable(text))

    def planned(self, study: "Study", kept: list[Cell]) -> None:
        self._cells, self._places = kept, study.places
        if kept:
            self._console.print(f"{len(kept)} of {len(self._places)} cells are there already")
        self._bar.start()
        self._bar.add_task("", left="")

    def started(self, place: Place) -> None:
        self._show(place.label)

    def ended(self, cell: Cell) -> None:
        self._cells.append(cell)
        result, more = cell.result, self._left()
        line = (
            f"{len(self._cells)}/{len(self._places)}  {cell.place.label}: {result.accuracy:.1%} in "
            f"{duration(result.seconds)}"
        )
        self.line(line + (f", about {duration(more)} left" if more else ""))

    def _left(self) -> float:
        from vitpipe.study.study import expected_seconds

        there = {cell.place for cell in self._cells}
        return sum(expected_seconds(place, self._cells) for place in self._places if place not in there)

    def _show(self, what: str) -> None:
        spent, more = sum(cell.result.seconds for cell in self._cells), self._left()
        remaining = f"about {duration(more)} left" if self._cells and more else ""
        self._bar.update(self._bar.tasks[0].id, description=what, completed=spent, total=spent + more, left=remaining)

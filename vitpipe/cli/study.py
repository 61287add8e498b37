"""`vitpipe study`: compare architectures that are trained on the same data."""

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
from vitpipe.cli.panels import RUN, example
from vitpipe.cli.tables import print_rows
from vitpipe.study.cells import Cell, Place
from vitpipe.study.run import StudyProgress, run_study

if TYPE_CHECKING:
    from vitpipe.study.study import Study

app = typer.Typer(
    name="study",
    help="Compare architectures that are trained on the same data.",
    no_args_is_help=True,
    rich_help_panel=RUN,
)


@app.command(
    "data-regime",
    rich_help_panel=RUN,
    epilog=example(
        "vitpipe study data-regime --data data/cifar10",
        "vitpipe study data-regime --data data/cifar10 --budget full --pretrained cifar10",
    ),
)
def data_regime(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data folder that `vitpipe data prepare` wrote.")],
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Backbone of a pretrained ViT to include, as for `vitpipe finetune --from`.",
            show_default="no pretrained ViT",
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="small|full", help="Amount of training: `small` for two CPU cores, `full` for a GPU.")
    ] = "small",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting of the budget. Repeatable.")
    ] = None,
    span: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_SPAN, metavar="N", help="Number of the span to train on.", show_default="the newest"
        ),
    ] = None,
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results and their page.")] = Path("study"),
    as_json: Json = False,
) -> None:
    """Measure the accuracy of several architectures after training on n images per class.

    Each training is repeated with several n and seeds. For each n, all architectures take the same number of steps
    with the same batch size and augmentation. The test split is evaluated once, after the last step. To choose
    settings, use `--set split=val`, so that the test split stays unseen. Every result is stored: repeat the command to
    continue a study that was stopped.
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
    figures = result.found
    if as_json:
        print_json(figures.model_dump(mode="json") | {"page": str(result.page)})
        return
    print_rows(
        (
            "architecture",
            "images per class",
            "accuracy",
            "95% interval",
            "steps",
            "time per training",
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
            for row in figures.rows
        ],
    )
    if (seeds := figures.settings["seeds"]) > 1:
        print(f"intervals by Student's t over {seeds} seeds", file=sys.stderr)
    print_line(display_path(result.page))


class _Display(StudyProgress):
    """Progress of a study: a line for each trained cell and, on a terminal, a bar over the expected time of all."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(
            *columns,
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )
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
            self._console.print(f"{len(kept)} of {len(self._places)} cells are already trained")
        self._bar.start()
        self._bar.add_task("", left="")

    def started(self, place: Place) -> None:
        self._show(place.label)

    def ended(self, cell: Cell) -> None:
        self._cells.append(cell)
        result, left = cell.result, self._seconds_left()
        line = (
            f"{len(self._cells)}/{len(self._places)}  {cell.place.label}: {result.accuracy:.1%} in "
            f"{duration(result.seconds)}"
        )
        self.line(line + (f", about {duration(left)} left" if left else ""))

    def _seconds_left(self) -> float:
        from vitpipe.study.study import expected_seconds

        trained = {cell.place for cell in self._cells}
        return sum(expected_seconds(place, self._cells) for place in self._places if place not in trained)

    def _show(self, what: str) -> None:
        spent, left = sum(cell.result.seconds for cell in self._cells), self._seconds_left()
        text = f"about {duration(left)} left" if self._cells and left else ""
        self._bar.update(self._bar.tasks[0].id, description=what, completed=spent, total=spent + left, left=text)

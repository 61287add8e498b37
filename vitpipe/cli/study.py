"""`vitpipe study`: architectures compared by measurement."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from components.data.ingest import MAX_SPAN
from components.errors import SettingsError
from pipeline.console.duration import duration
from pipeline.console.logs import own_stderr, redirected, shown
from pipeline.console.terminal import Console, print_json, print_line, printable
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.tables import print_rows

if TYPE_CHECKING:
    from vitpipe.study.cells import Cell
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
    from components.data import ingest
    from components.data.ingest import manifest
    from vitpipe.study.settings import study_settings

    settings = study_settings(budget, overrides)
    pretrained = pretrained or settings.finetune.source or None
    there = ingest.spans(data)
    if not there or (span is not None and span not in there):
        wanted = f"no span {span}" if span is not None and there else "no data"
        have = f"; it has {', '.join(map(str, there))}" if there else ""
        raise SettingsError(f"{wanted} in {data}{have}: name a folder that `vitpipe data prepare` wrote")
    folder = ingest.span_folder(data, span or there[-1])
    classes = list(manifest.read(folder).class_names)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out {out} cannot be written ({error.strerror}): name another folder") from None
    console = Console(file=own_stderr(), soft_wrap=True)
    with redirected(out / "training.log"):  # what libraries say
        from pipeline.backbone import locate
        from vitpipe.study import draw, page, results
        from vitpipe.study.study import Study, arms

        of = arms(settings, locate(pretrained, runs) if pretrained else None)
        if not pretrained:
            console.print("no pretrained ViT: name its backbone with --pretrained to have it, too")
        console.print(printable(f"reading {shown(folder)}"))
        train_split, test_split = (draw.read(folder, split, settings.image_size) for split in ("train", settings.split))
        planned = Study(settings, of, train_split, test_split, len(classes), out)
        done = _run(console, planned)
        rates = {arm.name: arm.trained.learning_rate for arm in of if not isinstance(arm.trained, str)}
        settings = settings.model_copy(update={"learning_rates": rates})  # the registered ones, too
        found = results.Found(
            data=shown(folder), classes=classes, test_images=len(test_split), pretrained=pretrained,
            settings=settings.model_dump(mode="json"), machine=results.machine(),
            rows=results.rows({arm.name: arm.title for arm in of}, done),
        )  # fmt: skip
        written = page.write(found, out)
    if as_json:
        print_json(found.model_dump(mode="json") | {"page": str(written)})
        return
    print_rows(
        (
            "architecture", "images a class", "accuracy", "95 % interval", "steps", "a cell", "parameters",
            "multiply-adds",
        ),
        [
            (
                row.title, f"{row.size:,}", f"{row.accuracy:.1%}",
                f"{row.interval[0]:.1%} to {row.interval[1]:.1%}" if row.interval else "one seed",
                f"{row.steps:,}", duration(row.seconds), f"{row.parameters:,}", f"{row.multiply_adds / 1e6:,.1f} M",
            )
            for row in found.rows
        ],
    )  # fmt: skip
    if settings.seeds > 1:
        print(f"intervals by Student's t over {settings.seeds} seeds", file=sys.stderr)
    print_line(shown(written))


def _run(console: Console, planned: "Study") -> "list[Cell]":
    """All cells: a bar over them, by the time they take, on a terminal; a line each elsewhere, too."""
    from vitpipe.study.study import expected_seconds

    cells = planned.kept()
    if cells:
        console.print(f"{len(cells)} of {len(planned.places)} cells are there already")

    def left() -> float:
        there = {cell.place for cell in cells}
        return sum(expected_seconds(place, cells) for place in planned.places if place not in there)

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as display:
        bar = display.add_task("", left="")

        def show(what: str) -> None:
            spent, more = sum(cell.result.seconds for cell in cells), left()
            remaining = f"about {duration(more)} left" if cells and more else ""
            display.update(bar, description=what, completed=spent, total=spent + more, left=remaining)

        for cell in planned.run(lambda place: show(place.words)):
            cells.append(cell)
            result, more = cell.result, left()
            line = (
                f"{len(cells)}/{len(planned.places)}  {cell.place.words}: {result.accuracy:.1%} in "
                f"{duration(result.seconds)}"
            )
            console.print(printable(line + (f", about {duration(more)} left" if more else "")))
        show("done")
    return cells

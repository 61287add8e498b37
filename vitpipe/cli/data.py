"""`vitpipe data`: images in, checked spans of TFRecord shards out."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from components.data.ingest import MAX_SPAN
from pipeline.console.terminal import Console, print_line

app = typer.Typer(help="Prepare and verify training data.", no_args_is_help=True)


@app.command()
def prepare(
    kind: Annotated[str, typer.Argument(metavar="cifar10|images|sample", help="What kind of source it is.")],
    source: Annotated[
        str | None,
        typer.Option(help="Image folder, tar or zip archive, or URL of one; cifar10 is downloaded without it."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Data folder.", show_default="data/<kind>")] = None,
    span: Annotated[
        int | None, typer.Option(min=1, max=MAX_SPAN, help="Number of the span.", show_default="the next")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Only these classes, in the source's order.")
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            min=3,
            max=1_000_000_000,
            metavar="N",
            help="At most N images of each class for train and val; test stays whole.",
        ),
    ] = None,
    max_rejected: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of records, 0 to 1, that may be left out; more refuses the source.",
            show_default="0.01",
        ),
    ] = None,
) -> None:
    """Write a source as a span of TFRecord shards.

    Every image is decoded once; what does not decode is left out and listed in manifest.json, and too much of it
    refuses the source. A source that is the newest span already is not written again. An image stays in the split that
    earlier spans of the data folder have it in.
    """
    from pydantic import ValidationError

    import components.data.ingest as ingest
    from components.data.ingest.images import REMARKS, fix
    from components.data.ingest.manifest import Recipe

    out = out or Path("data", kind)
    chosen = None if classes is None else sorted(name.strip() for name in classes.split(",") if name.strip())
    if chosen is not None and not 2 <= len(chosen) == len(set(chosen)):
        raise ingest.UsageError(f"--classes {classes}: name at least two classes, with commas, each of them once")
    bound = {} if max_rejected is None else {"max_rejected": max_rejected}
    try:
        recipe = Recipe(classes=chosen, per_class=per_class, **bound)
    except ValidationError:
        raise ingest.UsageError(f"--max-rejected {max_rejected}: use a share from 0 to 1, such as 0.05") from None
    before = ingest.spans(out)
    with _progress() as progress:
        manifest = ingest.prepare(kind, out, source, span, recipe, progress)
    number = span or ingest.spans(out)[-1]
    folder = ingest.span_folder(out, number)
    if number in before:
        print_line(f"{folder.name} is already there and unchanged: {folder}")
        return
    for rejection in manifest.rejected:
        advice = fix(rejection.reason)
        line = f"left out {rejection.count:,}: {rejection.reason} (first: {rejection.ids[0]})"
        print_line(line + (f": {advice}" if advice else ""), sys.stderr)
    for group in manifest.remarked:
        text, advice = REMARKS[group.remark]
        print_line(
            f"{group.remark}: in {group.count:,} of {group.images:,} images {text} (first: {group.ids[0]}): {advice}",
            sys.stderr,
        )
    if other := manifest.passed_over:
        print_line(f"passed over {other.count:,} files that are no images (first: {other.ids[0]})", sys.stderr)
    for name in manifest.class_names:
        there = manifest.counts["train"][name] + manifest.counts["val"][name]
        if per_class is not None and there < per_class:
            print_line(f"{name} has {there:,} images for train and val, not {per_class:,}", sys.stderr)
    sizes = ", ".join(f"{manifest.examples(split):,} {split}" for split in manifest.counts)
    print_line(f"{folder}: {sizes} images of {len(manifest.class_names)} classes in {len(manifest.shards)} shards")


@app.command()
def verify(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder, or one span of it.")]) -> None:
    """Check every shard against its manifest. Exits with 3 when something is missing, altered or too much."""
    from components.data.ingest import verify as verification

    with _progress() as progress:
        problems = verification.problems(folder, progress)
    if problems:
        for problem in problems:
            print_line(problem)
        raise typer.Exit(3)
    print_line(f"{folder}: {len(verification.span_folders(folder))} span(s), every shard as it was written")


@contextmanager
def _progress() -> Iterator["_Throttle"]:
    """Shows progress on stderr: a bar on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Throttle(_line, every_s=5)
        yield lines
        lines.flush()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as display:

        def bar(what: str, done: int, total: int | None) -> None:
            if not display.tasks or display.tasks[-1].description != what:
                for task in display.tasks:
                    display.update(task.id, total=task.completed)  # a bar without a total never ends by itself
                display.add_task(what)
            display.update(display.tasks[-1].id, completed=done, total=total)

        bars = _Throttle(bar, every_s=0.1)
        yield bars
        bars.flush()


def _line(what: str, done: int, total: int | None) -> None:
    print_line(f"{what}: {done:,}" + ("" if total is None else f"/{total:,}"), sys.stderr)


class _Throttle:
    """Shows a progress that is told for every image: now and then, and the last of each thing counted."""

    def __init__(self, show: Callable[[str, int, int | None], None], every_s: float) -> None:
        self._show = show
        self._every_s = every_s
        self._untold: tuple[str, int, int | None] | None = None
        self._due: float | None = None

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if self._untold and self._untold[0] != what:
            self.flush()
        self._untold = (what, done, total)
        if self._due is None:
            self._due = time.monotonic() + min(self._every_s, 0.5)  # soon, to show that a long job has begun
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        if self._untold:
            self._show(*self._untold)
            self._untold = None
            self._due = time.monotonic() + self._every_s

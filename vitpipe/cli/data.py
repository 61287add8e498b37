"""`vitpipe data`: conversion of images to checked spans, their verification, and the search for wrong labels."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from components.data.ingest import MAX_SPAN
from components.errors import NotFound, UsageError
from pipeline.console.logs import display_path
from pipeline.console.terminal import Console, print_json, print_line
from vitpipe.cli.options import Json, Limit, RunName, Runs
from vitpipe.cli.panels import PREPARE, example
from vitpipe.cli.tables import print_rows

if TYPE_CHECKING:
    from components.data.ingest.manifest import Manifest
    from pipeline.beam_tasks import TaskRunner

app = typer.Typer(
    name="data",
    help="Prepare and verify training data, and find wrong labels.",
    no_args_is_help=True,
    rich_help_panel=PREPARE,
)


@app.command(
    rich_help_panel=PREPARE,
    epilog=example(
        "vitpipe data prepare cifar10",
        "vitpipe data prepare images --source pets.tar.gz --out data/pets",
        "vitpipe data prepare images --source photos.csv --out data/photos",
        "vitpipe data prepare images --source photos.csv --out data/photos --decisions decisions.csv",
        "vitpipe data prepare images --source /mnt/photos --out /mnt/data/photos -c engine.yaml",
    ),
)
def prepare(
    kind: Annotated[str, typer.Argument(metavar="cifar10|images|sample", help="Kind of the source.")],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            help="Folder, tar or zip archive, table of paths (CSV, Parquet), or URL of an archive. Required for "
            "`images`; `cifar10` is downloaded if it is omitted.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Data folder to write to.", show_default="data/KIND")
    ] = None,
    span: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_SPAN, metavar="N", help="Number of the new span.", show_default="the next"),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Use only these classes. They keep the order that the source has."),
    ] = None,
    per_class: Annotated[
        int | None,
        typer.Option(
            min=3,
            max=1_000_000_000,
            metavar="N",
            help="Use at most N images of each class in train and val together. The test split stays complete.",
        ),
    ] = None,
    max_rejected: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Largest share of rejected images, from 0 to 1. Above it the whole source is refused.",
            show_default="0.01",
        ),
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table (CSV, TSV, JSON Lines, Parquet) of decisions about images, with the columns `id`, `verdict` "
            "(keep, relabel or drop), `label` and, if recorded, `by` and `at`.",
        ),
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "-c",
            metavar="PRESET|FILE",
            help="Preset or YAML file, of which only the settings of the group `beam` are used. They name an engine "
            "that does the work on several machines.",
        ),
    ] = "sample",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="BEAM.B=C", help="Override a setting of `beam`, such as `beam.runner=flink`. Repeatable."
        ),
    ] = None,
) -> None:
    """Convert images to a span, which is one numbered version of the training data.

    A span consists of TFRecord shards for the splits train, val and test. Every image is decoded once. Images that
    cannot be used are rejected and listed in the span's `manifest.json`. A source that equals the newest span is not
    written again. An image keeps the split that it has in earlier spans of the data folder.

    By default, this process does the work. With an engine, such as Flink, its workers do. The span is the same.

    After the first span of your own images, it prints the command that trains on them, with suitable settings.
    """
    from pydantic import ValidationError

    import components.data.ingest as ingest
    from components.data.ingest.images import REMARKS, fix
    from components.data.ingest.manifest import Recipe
    from vitpipe.advice import advise, has_nvidia_gpu, read_facts

    out = out or Path("data", kind)
    class_names = None if classes is None else sorted(name.strip() for name in classes.split(",") if name.strip())
    if class_names is not None and not 2 <= len(class_names) == len(set(class_names)):
        raise ingest.UsageError(
            f"--classes {classes}: name at least two classes, separated by commas, each of them once"
        )
    bound = {} if max_rejected is None else {"max_rejected": max_rejected}
    try:
        recipe = Recipe(classes=class_names, per_class=per_class, **bound)
    except ValidationError:
        raise ingest.UsageError(f"--max-rejected {max_rejected}: use a share from 0 to 1, such as 0.05") from None
    run_tasks = _engine(config, overrides or [])
    before = ingest.spans(out)
    with _progress() as progress:
        manifest = ingest.prepare(kind, out, source, span, recipe, progress, decisions, run_tasks)
    number = span or ingest.spans(out)[-1]
    folder = ingest.span_folder(out, number)
    if number in before:
        print_line(f"{folder.name} is already there and unchanged: {folder}")
        return
    for rejection in manifest.rejected:
        advice = fix(rejection.reason)
        line = f"rejected {rejection.count:,}: {rejection.reason} (first: {rejection.ids[0]})"
        print_line(line + (f": {advice}" if advice else ""), sys.stderr)
    for group in manifest.remarked:
        text, advice = REMARKS[group.remark]
        print_line(
            f"{group.remark}: in {group.count:,} of {group.images:,} images {text} (first: {group.ids[0]}): {advice}",
            sys.stderr,
        )
    if ignored := manifest.passed_over:
        print_line(f"ignored {ignored.count:,} files that are not images (first: {ignored.ids[0]})", sys.stderr)
    for name in manifest.class_names:
        count = manifest.counts["train"][name] + manifest.counts["val"][name]
        if per_class is not None and count < per_class:
            print_line(f"{name} has only {count:,} images for train and val, not {per_class:,}", sys.stderr)
    if decided := manifest.recipe.decisions:
        print_line(
            f"decisions of {decisions}: {decided.keep:,} labels kept, {decided.relabel:,} changed, {decided.drop:,} "
            "images dropped",
            sys.stderr,
        )
        if number > 1:
            print_line(
                f"to gate on the decisions about test images, set data.gate_span to {number}: until then, models are "
                "tested on the test split of another span",
                sys.stderr,
            )
    elif _had_decisions(out, before, manifest):
        print_line(
            "decisions were applied to this source in an earlier span, and are not applied in this one: to apply "
            "them, prepare it again with --decisions",
            sys.stderr,
        )
    sizes = ", ".join(f"{manifest.examples(split):,} {split}" for split in manifest.counts)
    print_line(f"{folder}: {sizes} images of {len(manifest.class_names)} classes in {len(manifest.shards)} shards")
    if not before and kind not in ("cifar10", "sample"):
        advised = advise(read_facts(out), has_nvidia_gpu())
        print_line(f"to train on it: {advised.command(out)}", sys.stderr)
        print_line(f"why {advised.preset}: {advised.reason}", sys.stderr)


def _had_decisions(data: Path, earlier: list[int], manifest: "Manifest") -> bool:
    """Return whether decisions were applied in the newest of some spans that has the source of a new span."""
    from components.data.ingest import manifest as manifests
    from components.data.ingest import span_folder

    for number in reversed(earlier):
        span = manifests.read(span_folder(data, number))
        if span.source_sha256 == manifest.source_sha256:
            return span.recipe.decisions is not None
    return False


def _engine(config: str, overrides: list[str]) -> "TaskRunner | None":
    """Return the function that runs tasks on the engine of the settings, or None if no engine is set."""
    from pipeline.beam import check_job_service
    from pipeline.beam_tasks import TaskRunner
    from pipeline.settings import load

    for flag in overrides:
        if not flag.startswith("beam."):
            raise UsageError(
                f"--set {flag} has no effect on `data prepare`: only settings of the group beam are used. Remove it"
            )
    settings = load(config, overrides).beam
    if settings.runner == "local":
        return None
    check_job_service(settings)
    return TaskRunner(settings, repeated=lambda message: print_line(message, sys.stderr))


@app.command(rich_help_panel=PREPARE, epilog=example("vitpipe data verify data/cifar10"))
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Data folder, or one of its spans.")],
) -> None:
    """Check every shard of a span against the span's manifest.

    Exits with 3 if a file is missing, was changed, or does not belong to the span.
    """
    from components.data.ingest import verify as verification

    with _progress() as progress:
        problems = verification.problems(folder, progress)
    if problems:
        for problem in problems:
            print_line(problem)
        raise typer.Exit(3)
    print_line(f"{folder}: {len(verification.span_folders(folder))} span(s), all shards are unmodified")


@app.command(
    rich_help_panel=PREPARE, epilog=example("vitpipe data suspects last", "vitpipe data suspects last --limit 0 --json")
)
def suspects(run: RunName, limit: Limit = 20, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """List the images whose label is probably wrong, the most suspicious first.

    A run lists them if `label_check.epochs` is above 0. Look through them on the page whose path is printed, and pass
    your decisions to `vitpipe data prepare --decisions`.
    """
    from components.data.labels.suspects import PAGE, read_figures, read_suspects
    from components.data.pictures import readable_id
    from pipeline.metadata.stores import find_run
    from pipeline.result.run_result import RunResult

    _, record = find_run(run, runs)
    folder = RunResult(record).label_suspects
    if folder is None:
        raise NotFound(
            f"run {record.name} has not checked the labels: run with --set label_check.epochs=5, and see the page "
            "about wrong labels"
        )
    if not (folder / PAGE).is_file():
        raise NotFound(f"the files of the label check of run {record.name} were removed from {display_path(folder)}")
    figures, table = read_figures(folder), read_suspects(folder)
    listed = [
        {
            "split": row.split,
            "span": row.span,
            "id": readable_id(row.id),
            "label": row.label,
            "suggested": row.suggested,
            "score": round(row.score, 4),
            "reason": row.reason,
            "twin": "" if row.twin_id is None else f"{row.twin_split}: {readable_id(row.twin_id)}",
        }
        for row in table.head(limit or len(table)).itertuples()
    ]
    page = folder / PAGE
    if as_json:
        # `given` remains in a table of decisions when the user replaces `label`.
        listed = [{**each, "given": each["label"]} for each in listed]
        print_json({"run": record.name, "page": str(page), "figures": figures.model_dump(), "suspects": listed})
        return
    if figures.problem:
        print_line(f"the labels were not checked: {figures.problem}", sys.stderr)
        return
    print_rows([*listed[0]] if listed else [], [[str(value) for value in each.values()] for each in listed])
    print_line(
        f"{len(table):,} of {figures.images:,} images are suspects; about {figures.wrong:.1%} of the labels are wrong, "
        "by the estimate of confident learning",
        sys.stderr,
    )
    if figures.too_small:
        names = ", ".join(figures.too_small)
        print_line(f"the estimate leaves out classes with too few different images: {names}", sys.stderr)
    print_line(f"their page: {display_path(page)}", sys.stderr)


@contextmanager
def _progress() -> Iterator["_Throttle"]:
    """Show progress on standard error: as a bar on a terminal, otherwise as a line every few seconds."""
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
                    display.update(task.id, total=task.completed)  # a bar without a total would stay animated
                display.add_task(what)
            display.update(display.tasks[-1].id, completed=done, total=total)

        bars = _Throttle(bar, every_s=0.1)
        yield bars
        bars.flush()


def _line(what: str, done: int, total: int | None) -> None:
    print_line(f"{what}: {done:,}" + ("" if total is None else f"/{total:,}"), sys.stderr)


class _Throttle:
    """Progress callback that forwards at most one call per period, and always the last call of each task.

    The import reports its progress after every image, which is far more often than a display can use.

    Args:
        show: Callback with the name of the task, the number of finished items, and their total or None.
        every_s: Length of a period in seconds.
    """

    def __init__(self, show: Callable[[str, int, int | None], None], every_s: float) -> None:
        self._show = show
        self._every_s = every_s
        self._pending: tuple[str, int, int | None] | None = None
        self._due: float | None = None

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if self._pending and self._pending[0] != what:
            self.flush()
        self._pending = (what, done, total)
        if self._due is None:
            self._due = time.monotonic() + min(
                self._every_s, 0.05
            )  # the first line comes early, to show that the work has begun
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._show(*self._pending)
            self._pending = None
            self._due = time.monotonic() + self._every_s

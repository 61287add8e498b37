"""`vitpipe gc`: remove the files of artifacts that nothing needs any more."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import Progress

from components.quantities import quantity
from pipeline.console.terminal import Console, print_json, print_line
from pipeline.garbage_collection import Collection, collect_garbage
from vitpipe.cli.options import Json, OnlyPipeline, Runs
from vitpipe.cli.panels import MAINTAIN, example
from vitpipe.cli.tables import print_rows

app = typer.Typer()


@app.command(
    rich_help_panel=MAINTAIN,
    epilog=example("vitpipe gc --keep 5 --dry-run", "vitpipe gc --keep 5"),
)
def gc(
    keep: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            metavar="N",
            help="Number of runs of each pipeline, the newest ones, whose files are kept.",
        ),
    ],
    pipeline: OnlyPipeline = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, without removing it.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Remove the files of artifacts that nothing needs any more.

    Files stay if a kept run, a pushed model or a comparison with an earlier span needs them. ML Metadata marks the
    other artifacts as deleted, and the cache no longer returns them.
    """
    console = Console(stderr=True)
    # If standard error is a terminal, Rich would by default redirect standard output to it, even out of a pipe.
    bar = Progress(
        console=console, transient=True, redirect_stdout=False, redirect_stderr=False, disable=not console.is_terminal
    )

    def progress(what: str, done: int, total: int | None) -> None:
        if not bar.tasks:
            bar.start()
            bar.add_task(what)
        bar.update(bar.tasks[0].id, completed=done, total=total)

    def ended(collection: Collection) -> None:
        if bar.tasks:
            bar.stop()
            bar.remove_task(bar.tasks[0].id)
        _warn(collection)
        if not as_json:
            _print(collection, dry_run)

    try:
        collections = collect_garbage(
            keep, pipeline=pipeline, dry_run=dry_run, runs=runs, progress=progress, ended=ended
        )
    finally:
        bar.stop()
    if as_json:
        print_json([asdict(artifact) for collection in collections for artifact in collection.removed])


def _warn(collection: Collection) -> None:
    if not collection.refused:
        return
    print(
        f"warning: {collection.pipeline}: {len(collection.refused)} artifact(s) not removed, because their paths are "
        f"not {collection.root}/<node>/<key>/<execution>, or lead through a link. No run records such paths: somebody "
        "changed the store or the folder. Check each of them, and remove it by hand.",
        file=sys.stderr,
    )
    for artifact in collection.refused:
        print_line(f"  {artifact.type} {artifact.id}: {artifact.uri!r}", sys.stderr)


def _print(collection: Collection, dry_run: bool) -> None:
    removed = collection.removed
    sizes: dict[str, list[int]] = {}
    for artifact in removed:
        sizes.setdefault(artifact.type, []).append(artifact.bytes)
    rows = [(name, str(len(of_type)), decimal(sum(of_type))) for name, of_type in sorted(sizes.items())]
    print_rows(("type", "artifacts", "size"), rows)
    total = f"{quantity(len(removed), 'artifact')}, {decimal(sum(artifact.bytes for artifact in removed))}"
    done = "would be removed" if dry_run else "removed"
    print_line(f"{collection.pipeline}: {total} {done}" if removed else f"{collection.pipeline}: nothing to remove")

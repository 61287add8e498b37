"""Import of images: read a source, write a span of TFRecord shards.

    manifest = components.data.ingest.prepare("images", Path("data/pets"), source="pets.tar.gz")

A new source is one file in `sources/` and one line in `sources/__init__.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.data.ingest.folder import MAX_SPAN, span_folder, spans
from components.data.ingest.source import Progress, no_progress, select_classes
from components.errors import DataRefused, UsageError

if TYPE_CHECKING:
    from components.data.ingest.manifest import Manifest, Recipe

__all__ = ["MAX_SPAN", "DataRefused", "UsageError", "prepare", "span_folder", "spans"]


def prepare(
    kind: str,
    out: Path,
    source: str | None = None,
    span: int | None = None,
    recipe: Recipe | None = None,
    progress: Progress = no_progress,
) -> Manifest:
    """Write a source as a span of a data folder, and return the span's manifest.

    A span of the same source and recipe is not written again: without `span` it is compared with the newest, with
    `span` with the one of that number. Downloads are kept in `<out>/.download`. If an error is raised, `out` keeps the
    spans that it had, and no part of another.

    Memory: a few batches of images on their way through the checkers (see `checkers`) and 45 bytes for each image that
    was read (see `spool`), however many there are. Disk: the images twice while they are written.

    Args:
        kind: a name in `components.data.ingest.sources.SOURCES`.
        out: the data folder.
        source: a path or URL, None for the kind's own. It must not change while it is read.
        span: number of the span, None for the one after the newest.
        recipe: the numbers that shape the span; None for the defaults.
        progress: called with what is being done.

    Raises:
        UsageError: if an argument is wrong, the number is taken, or another writer is at work.
        DataRefused: if the data cannot be used, or the disk cannot be written.
    """
    # Here, because these bring NumPy, Pillow and requests: whoever only catches DataRefused need not wait for them.
    from components.data.ingest.manifest import Recipe
    from components.data.ingest.sources import SOURCES
    from components.data.ingest.write import disk_problem, write

    if span is not None and not 1 <= span <= MAX_SPAN:
        raise UsageError(f"span {span}: use a number from 1 to {MAX_SPAN}")
    if kind not in SOURCES:
        raise UsageError(f"no source {kind!r}: use one of {', '.join(SOURCES)}")
    try:
        opened, recipe = SOURCES[kind](source, out / ".download", progress), recipe or Recipe()
        if recipe.classes is not None:
            opened = select_classes(opened, recipe.classes)
        return write(kind, opened, out, span, recipe, progress)
    except OSError as error:
        raise DataRefused(disk_problem(error, out)) from error

"""Import of images: reads a source and writes a span of TFRecord shards.

    manifest = components.data.ingest.prepare("images", Path("data/pets"), source="pets.tar.gz")

To add a kind of source, add a module to `sources/` and register it in `sources/__init__.py`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.ingest.folder import MAX_SPAN, span_folder, spans
from components.data.ingest.source import Progress, no_progress, select_classes
from components.errors import DataRefused, UsageError

if TYPE_CHECKING:
    from components.data.ingest.engine_work import RunTasks
    from components.data.ingest.manifest import Manifest, Recipe

__all__ = ["MAX_SPAN", "DataRefused", "UsageError", "prepare", "span_folder", "spans"]


def prepare(
    kind: str,
    out: Path,
    source: str | None = None,
    span: int | None = None,
    recipe: Recipe | None = None,
    progress: Progress = no_progress,
    decisions: Path | None = None,
    run_tasks: RunTasks | None = None,
) -> Manifest:
    """Write the images of a source as a span of a data folder.

    If the span `span` already has the same source and recipe, nothing is written and its manifest is returned. If
    `span` is None, the newest span is compared. Downloads are kept in `<out>/.download`. If an error is raised, the
    data folder keeps its spans and gets no incomplete span.

    Memory holds a few batches of images that are being checked (see `checkers`), and about 250 bytes for each image:
    its row in the spool, its history, and copies of both while they are sorted. The largest folder of a source needs
    about as much again for each of its files, whose names are sorted. The disk holds the images twice while they are
    written.

    With `run_tasks`, workers hash, read, check and write the images, and the span is the same. The source and the data
    folder must be on a file system that the workers have at the same paths.

    Args:
        kind: a name in `components.data.ingest.sources.SOURCES`.
        out: the data folder.
        source: a path or URL; None for the default source of the kind. It must not change while it is read.
        span: number of the span; None for the number after the newest span.
        recipe: the parameters of the span; None for the defaults.
        progress: called with the progress of each stage.
        decisions: table of a person's decisions about images, see `components.data.ingest.decisions`.
        run_tasks: function that runs tasks on workers, see `pipeline.beam_tasks`; None to work in this process.

    Returns:
        The manifest of the span.

    Raises:
        UsageError: if an argument is wrong, the span exists with other content, another process writes to `out`, or
            the source cannot be divided between workers.
        DataRefused: if the data cannot be used, or the disk cannot be read or written.
        EngineError: if the workers fail.
    """
    # Imported here, because these modules import NumPy and Pillow, which takes long. Callers that only need the errors
    # or the paths of spans do not wait for them.
    from components.data.ingest.decisions import apply as apply_decisions
    from components.data.ingest.decisions import read as read_decisions
    from components.data.ingest.manifest import Recipe
    from components.data.ingest.sources import SOURCES

    if span is not None and not 1 <= span <= MAX_SPAN:
        raise UsageError(f"span {span}: use a number from 1 to {MAX_SPAN}")
    if kind not in SOURCES:
        raise UsageError(f"no source {kind!r}: use one of {', '.join(SOURCES)}")
    try:
        opened, recipe = SOURCES[kind](source, out / ".download", progress), recipe or Recipe()
        decided = None if decisions is None else read_decisions(decisions)
        if decided is not None:
            opened = apply_decisions(opened, decided)
            recipe = recipe.model_copy(update={"decisions": decided.file})
        if recipe.classes is not None:
            opened = select_classes(opened, recipe.classes)
        if run_tasks is None:
            # The next import takes long, because it imports pandas. The hashing of a large source shows its progress
            # before.
            _ = opened.sha256
            from components.data.ingest.write import write

            return write(kind, opened, out, span, recipe, progress)

        from components.data.ingest.engine_work import OnEngine
        from components.data.ingest.write import write

        return write(
            kind,
            opened,
            out,
            span,
            recipe,
            progress,
            functools.partial(OnEngine, run_tasks=run_tasks, decisions=decided),
        )
    except OSError as error:
        from components.data.ingest.disk_errors import disk_problem

        raise DataRefused(disk_problem(error, out)) from error

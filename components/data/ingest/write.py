"""Writer of a span, which is written completely or not at all."""

import importlib.metadata
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from components.data.ingest import history as histories
from components.data.ingest import manifest as manifests
from components.data.ingest import schema
from components.data.ingest.folder import MAX_SPAN, span_folder, spans
from components.data.ingest.intake import describe_difference, describe_rejections
from components.data.ingest.locks import folder_lock
from components.data.ingest.manifest import Manifest, Recipe, Rejection
from components.data.ingest.source import Progress, Source, no_progress
from components.data.ingest.work import InProcess, Work
from components.errors import DataRefused, UsageError
from trainer.disk import atomic_write, sync, sync_tree
from trainer.examples import class_names

_TEMPORARY = ".tmp-"

MakeWork = Callable[[Source, Recipe, Path, Progress], Work]


def write(
    kind: str,
    source: Source,
    out: Path,
    span: int | None,
    recipe: Recipe,
    progress: Progress = no_progress,
    make_work: MakeWork = InProcess,
) -> Manifest:
    """Write a source as a span of a data folder.

    Args:
        kind: name of the kind of source.
        source: the source.
        out: the data folder.
        span: number of the span; None for the number after the newest span.
        recipe: the parameters of the span.
        progress: called with the progress of each stage.
        make_work: function that returns what hashes, checks and writes the images, called as
            make_work(source, recipe, new folder of the span, progress).

    Returns:
        The manifest of the span, or of the existing span if that has the same source and recipe.

    Raises:
        UsageError: if the number is too high, the span exists with other content, or another process writes to `out`.
        DataRefused: if the data cannot be used.
        OSError: if the disk cannot be read or written.
    """
    with folder_lock(out):
        for leftover in out.glob(f"{_TEMPORARY}*"):  # a dead writer left it, because this process holds the lock
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        existing = spans(out)
        number = span or (existing[-1] + 1 if existing else 1)
        is_there = bool(existing) and span in (None, *existing)
        current = manifests.read(span_folder(out, span or existing[-1])) if is_there else None
        with _temporary_folder(out, number) as folder:
            with make_work(source, recipe, folder, progress) as work:
                sha256 = work.sha256()
                if current and (current.kind, current.source_sha256, current.recipe) == (kind, sha256, recipe):
                    return current
                if current and span is not None:
                    raise UsageError(
                        f"--span {span}: {span_folder(out, span)} holds other content (from {current.source}): "
                        f"use --span {existing[-1] + 1}, or leave --span out"
                    )
                if number > MAX_SPAN:
                    raise UsageError(f"{out} has span {existing[-1]}, the highest possible number: name a lower --span")
                manifest = _write_span(kind, source, out, number, recipe, folder, progress, work)
            manifests.write(manifest, folder)
            sync_tree(folder)
            if not existing:
                _write_schema(out, manifest.class_names)
            folder.rename(span_folder(out, number))
            sync(out)
        return manifest


def _write_span(
    kind: str, source: Source, out: Path, number: int, recipe: Recipe, folder: Path, progress: Progress, work: Work
) -> Manifest:
    """Write the shards and the history of a span, and return its manifest."""
    earlier_classes = class_names(schema.read(out)) if spans(out) else None
    history = histories.read(out, progress)
    intake, spool = work.take_in(earlier_classes or ())
    names = intake.class_names
    if earlier_classes is not None and earlier_classes != list(names):
        raise DataRefused(
            f"{source.description}: its classes are not those of {out / schema.NAME}: "
            f"{describe_difference(earlier_classes, names)}; use another --out for other classes"
        )
    splits = spool.split(recipe.held_out, history, recipe.per_class)
    counts = {
        split: dict(zip(names, np.bincount(rows["label"], minlength=len(names)).tolist(), strict=True))
        for split, rows in splits.items()
    }
    _refuse_rejected_class(counts, source, intake.rejected)
    _refuse_missing(counts, source, spool.held_out, is_first_span=earlier_classes is None)
    for split in splits:
        (folder / split).mkdir()
    return Manifest(
        kind=kind,
        source=source.description,
        source_sha256=work.sha256(),
        recipe=recipe,
        class_names=names,
        counts=counts,
        image_shape=intake.image_shape,
        shards=work.write_shards(spool, _shards(splits, recipe.examples_per_shard)),
        rejected=intake.rejected,
        remarked=intake.remarked,
        passed_over=intake.passed_over,
        dropped=intake.dropped,
        history=history.with_span(number, splits).write(folder),
        tool_version=importlib.metadata.version("vitpipe"),
    )


def _shards(splits: dict[str, np.ndarray], examples_per_shard: int) -> dict[str, np.ndarray]:
    """Return the rows of each shard, by its path within the span."""
    shards = {}
    for split, rows in splits.items():
        total = -(-len(rows) // examples_per_shard)
        for number, part in enumerate(np.array_split(rows, total)):
            shards[f"{split}/part-{number:05}-of-{total:05}.tfrecord"] = part
    return shards


def _refuse_rejected_class(counts: dict[str, dict[str, int]], source: Source, rejections: Sequence[Rejection]) -> None:
    """Raise DataRefused if every image of a class was rejected."""
    empty = [name for name in counts["train"] if not any(by_class[name] for by_class in counts.values())]
    if empty:
        raise DataRefused(
            f"{source.description}: every image of class {empty[0]!r} was rejected. The rejected records of all "
            f"classes are: {describe_rejections(rejections)}; repair the images of the class, or remove it"
        )


def _refuse_missing(
    counts: dict[str, dict[str, int]], source: Source, held_out: Sequence[str], is_first_span: bool
) -> None:
    for split, by_class in counts.items():
        missing = [name for name, count in by_class.items() if not count]
        if not missing:
            continue
        by_split = ", ".join(f"{counts[other][missing[0]]:,} in {other}" for other in counts)
        if split not in held_out and "test" not in held_out:
            fix = f"put images of it into {split}/<class>/"
        else:
            fix = f"add images of it, so that there are at least {1 + len(held_out)} different pictures"
            if not is_first_span:
                fix += " that no earlier span holds (an earlier image stays in its split), or use another --out"
        raise DataRefused(
            f"{source.description}: {len(missing)} of {len(by_class)} classes have no image in {split} "
            f"(first: {missing[0]!r}, with {by_split}): every class needs one in train, val and test; {fix}"
        )


def _write_schema(out: Path, names: Sequence[str]) -> None:
    with atomic_write(out / schema.NAME) as file:
        file.write(schema.text(schema.build(names)).encode())


@contextmanager
def _temporary_folder(out: Path, number: int) -> Iterator[Path]:
    folder = out / f"{_TEMPORARY}span-{number}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # it is gone if it was renamed

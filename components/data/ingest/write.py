"""Writer of a span, which is written completely or not at all."""

import errno
import hashlib
import importlib.metadata
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from components.data.ingest import history as histories
from components.data.ingest import manifest as manifests
from components.data.ingest import schema, tfrecord
from components.data.ingest.folder import MAX_SPAN, span_folder, spans
from components.data.ingest.intake import describe_difference, describe_rejections, spool_images
from components.data.ingest.locks import folder_lock
from components.data.ingest.manifest import Manifest, Recipe, Rejection, Shard
from components.data.ingest.source import Progress, Source, no_progress
from components.data.ingest.spool import Spool
from components.errors import DataRefused, UsageError
from trainer.disk import atomic_write, sync, sync_tree
from trainer.examples import class_names

_TEMPORARY = ".tmp-"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(
    kind: str, source: Source, out: Path, span: int | None, recipe: Recipe, progress: Progress = no_progress
) -> Manifest:
    """Write a source as a span of a data folder.

    Args:
        kind: name of the kind of source.
        source: the source.
        out: the data folder.
        span: number of the span; None for the number after the newest span.
        recipe: the parameters of the span.
        progress: called with the progress of each stage.

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
        if existing and span in (None, *existing):
            current = manifests.read(span_folder(out, span or existing[-1]))
            if (current.kind, current.source_sha256, current.recipe) == (kind, source.sha256, recipe):
                return current
            if span is not None:
                raise UsageError(
                    f"--span {span}: {span_folder(out, span)} holds other content (from {current.source}): "
                    f"use --span {existing[-1] + 1}, or leave --span out"
                )
        if number > MAX_SPAN:
            raise UsageError(f"{out} has span {existing[-1]}, the highest possible number: name a lower --span")
        with _temporary_folder(out, number) as folder:
            manifest = _write_span(kind, source, out, number, recipe, folder, progress)
            manifests.write(manifest, folder)
            sync_tree(folder)
            if not existing:
                _write_schema(out, manifest.class_names)
            folder.rename(span_folder(out, number))
            sync(out)
        return manifest


def _write_span(
    kind: str, source: Source, out: Path, number: int, recipe: Recipe, folder: Path, progress: Progress
) -> Manifest:
    """Write the shards and the history of a span, and return its manifest."""
    earlier_classes = class_names(schema.read(out)) if spans(out) else None
    history = histories.read(out, progress)
    with Spool(folder / "spool", recipe.seed) as spool:
        intake = spool_images(source, spool, recipe, progress, earlier_classes or ())
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
        shards = _write_shards(spool, splits, recipe.examples_per_shard, folder, progress)
    (folder / "spool").unlink()
    return Manifest(
        kind=kind,
        source=source.description,
        source_sha256=source.sha256,
        recipe=recipe,
        class_names=names,
        counts=counts,
        image_shape=intake.image_shape,
        shards=shards,
        rejected=intake.rejected,
        remarked=intake.remarked,
        passed_over=intake.passed_over,
        history=history.with_span(number, splits).write(folder),
        tool_version=importlib.metadata.version("vitpipe"),
    )


def _write_shards(
    spool: Spool, splits: dict[str, np.ndarray], examples_per_shard: int, folder: Path, progress: Progress
) -> dict[str, Shard]:
    shards: dict[str, Shard] = {}
    images = sum(map(len, splits.values()))
    written = 0
    for split, rows in splits.items():
        (folder / split).mkdir()
        total = -(-len(rows) // examples_per_shard)
        for number, part in enumerate(np.array_split(rows, total)):
            name = f"{split}/part-{number:05}-of-{total:05}.tfrecord"
            shards[name] = _write_shard(folder / name, spool, part)
            written += len(part)
            progress("images written", written, images)
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


def _write_shard(path: Path, spool: Spool, rows: np.ndarray) -> Shard:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for row in rows:
            id, image = spool.read(row)
            record = tfrecord.frame(tfrecord.example(image, int(row["label"]), id))
            digest.update(record)
            file.write(record)
    return Shard(examples=len(rows), sha256=digest.hexdigest())


@contextmanager
def _temporary_folder(out: Path, number: int) -> Iterator[Path]:
    folder = out / f"{_TEMPORARY}span-{number}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # it is gone if it was renamed


def disk_problem(error: OSError, out: Path) -> str:
    """Describe an error of the disk, with the space that is needed if the disk is full.

    Args:
        error: the error that was raised while a span was written.
        out: the data folder.
    """
    where = error.filename or out
    if error.errno in _NO_SPACE:
        free = shutil.disk_usage(out).free
        return f"{where}: {error.strerror}; {free:,} bytes are free: a span needs twice the size of its images"
    return f"{where}: {error.strerror or error}"

"""Lookup of what a user names, before any library is loaded: a model, its test images, examples by id."""

from collections.abc import Collection, Iterator
from pathlib import Path

from components.data import ingest
from components.data.ingest import manifest, tfrecord
from components.errors import DataRefused, NotFound, UsageError
from components.model.serving_folder import RECORD, read_record
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.stores import find_run
from pipeline.pushed_models import check
from pipeline.result.run_result import RunResult

_LAST = "last.keras"  # in the Trainer's model_run folder


def model(path: Path, trusted: bool = False) -> Path:
    """Return a `.keras` file, or the folder of a SavedModel that is as it was pushed.

    Args:
        path: the file, the folder, or a folder in which a Trainer left its last weights.
        trusted: accept a SavedModel that was not pushed, too.

    Raises:
        UsageError: if it is anything else, or a SavedModel that is not trusted.
        DataRefused: if the SavedModel was changed.
    """
    if (path / _LAST).is_file():
        return path / _LAST
    if path.suffix == ".keras" and path.is_file():
        return path
    if path.suffix == ".npz" or any(path.glob("epoch-*.npz")):
        raise UsageError(
            f"{path} is a checkpoint to go on from, arrays without a model: name {_LAST} in the Trainer's model_run "
            "folder, for example runs/sample/root/Trainer/model_run/5"
        )
    check(path, trusted)
    return path


def find_span(data: Path) -> Path:
    """A span's folder, as it is, or the first span of a data folder. Raises UsageError where it is neither."""
    if (data / manifest.NAME).is_file():
        return data
    there = ingest.spans(data)
    if not there:
        raise UsageError(f"no data in {data}: name a folder that `vitpipe data prepare` wrote, or one of its spans")
    return ingest.span_folder(data, there[0])


def gate_span(pushed: Path, runs: Path) -> Path:
    """The span on whose test set the gate looked at a pushed model. Raises UsageError where nobody knows it."""
    fix = "say where the test images are with --data"
    if not (pushed / RECORD).is_file():
        raise UsageError(f"{pushed} has no {RECORD}, which says what it was tested on: {fix}")
    try:
        record = read_record(pushed)
    except ValueError as error:
        raise DataRefused(str(error)) from None
    try:
        _, run = find_run(record.run_id, runs)
    except NotFound as error:
        text, *unreadable = error.args
        raise UsageError(f"{text}; the run that made {pushed} knows its data: {fix}", *unreadable) from None
    try:
        data = RunResult(run).data_settings
    except UnreadableError as error:
        raise UsageError(f"run {run.name}: {error}; {fix}") from None
    span = ingest.span_folder(data.dir, data.gate_span)
    if not (span / manifest.NAME).is_file():
        raise UsageError(f"{span}, the test images of {pushed}, is not there: {fix}")
    return span


def examples(span: Path, split: str) -> Iterator[tfrecord.RawExample]:
    """In the order of the shards. Raises DataRefused for what is damaged."""
    try:
        yield from tfrecord.read_split(span / split)
    except DataRefused as error:
        raise DataRefused(f"{error}; `vitpipe data verify {span}` says more") from None


def by_id(span: Path, ids: Collection[str]) -> dict[str, bytes]:
    """The images of the examples of these ids, of the test set first. Raises UsageError for a missing one."""
    found: dict[str, bytes] = {}
    for split in ("test", "val", "train"):
        for example in examples(span, split):
            name = example.id.decode("utf-8", "backslashreplace")
            if name in ids:
                found.setdefault(name, example.image)
                if len(found) == len(ids):
                    return found
    missing = ", ".join(id for id in ids if id not in found)
    raise UsageError(f"{missing}: no file, and no id of an example in {span}: name PNG or JPEG files, or such ids")

"""Lookup of the inputs that a user names: a model, its test images, examples by id. Imports no large library."""

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

_LAST = "last.keras"  # the model after the last epoch, in the Trainer's model_run folder


def find_model(path: Path, trusted: bool = False) -> Path:
    """Return the `.keras` file or SavedModel folder that a path names.

    Args:
        path: a `.keras` file, the folder of a SavedModel, or a Trainer's `model_run` folder.
        trusted: accept a SavedModel that was not pushed, too.

    Returns:
        The `.keras` file, or the folder of a SavedModel that is unmodified since its push, or trusted.

    Raises:
        UsageError: if the path holds no model, or a SavedModel that was not pushed and is not trusted.
        DataRefused: if the SavedModel was modified after its push.
    """
    if (path / _LAST).is_file():
        return path / _LAST
    if path.suffix == ".keras" and path.is_file():
        return path
    if path.suffix == ".npz" or any(path.glob("epoch-*.npz")):
        raise UsageError(
            f"{path} is a checkpoint, which holds weights but no model: name the {_LAST} in a Trainer's model_run "
            "folder, for example runs/sample/root/Trainer/model_run/5"
        )
    check(path, trusted)
    return path


def find_span(data: Path) -> Path:
    """Return `data` if it is the folder of a span, or else the folder of its first span.

    Raises:
        UsageError: if `data` is not a span and contains none.
    """
    if (data / manifest.NAME).is_file():
        return data
    spans = ingest.spans(data)
    if not spans:
        raise UsageError(f"no data in {data}: name a folder that `vitpipe data prepare` wrote, or one of its spans")
    return ingest.span_folder(data, spans[0])


def find_gate_span(pushed: Path, runs: Path) -> Path:
    """Return the folder of the span whose test set the model gate evaluated a pushed model on.

    Args:
        pushed: the folder of the pushed model.
        runs: the folder of the run folders, in which the run that trained the model is looked up.

    Raises:
        UsageError: if the model has no record, its run is not recorded, or the span no longer exists.
        DataRefused: if the record of the model is damaged.
    """
    fix = "name the folder of the test images with --data"
    if not (pushed / RECORD).is_file():
        raise UsageError(f"{pushed} has no {RECORD}, which names the run that tested it: {fix}")
    try:
        record = read_record(pushed)
    except ValueError as error:
        raise DataRefused(str(error)) from None
    try:
        _, run = find_run(record.run_id, runs)
    except NotFound as error:
        text, *unreadable = error.args
        raise UsageError(
            f"{text}; without the run that made {pushed}, its test data is unknown: {fix}", *unreadable
        ) from None
    try:
        data = RunResult(run).data_settings
    except UnreadableError as error:
        raise UsageError(f"run {run.name}: {error}; {fix}") from None
    span = ingest.span_folder(data.dir, data.gate_span)
    if not (span / manifest.NAME).is_file():
        raise UsageError(f"{span} with the test images of {pushed} does not exist: {fix}")
    return span


def read_examples(span: Path, split: str) -> Iterator[tfrecord.RawExample]:
    """Yield the examples of one split, in the order of its shards.

    Args:
        span: the folder of the span.
        split: "train", "val" or "test".

    Raises:
        DataRefused: if a shard is damaged.
    """
    try:
        yield from tfrecord.read_split(span / split)
    except DataRefused as error:
        raise DataRefused(f"{error}; `vitpipe data verify {span}` says more") from None


def find_images(span: Path, ids: Collection[str]) -> dict[str, bytes]:
    """Return the encoded image of each example id. The test split is searched first, then val, then train.

    Args:
        span: the folder of the span.
        ids: ids of examples.

    Raises:
        UsageError: if no example has one of the ids.
        DataRefused: if a shard is damaged.
    """
    found: dict[str, bytes] = {}
    for split in ("test", "val", "train"):
        for example in read_examples(span, split):
            name = example.id.decode("utf-8", "backslashreplace")
            if name in ids:
                found.setdefault(name, example.image)
                if len(found) == len(ids):
                    return found
    missing = ", ".join(id for id in ids if id not in found)
    raise UsageError(
        f"{missing}: not a file, and not the id of an example in {span}: name PNG or JPEG files, or such ids"
    )

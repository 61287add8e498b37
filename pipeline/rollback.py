"""Return to an older model: it is pushed again as the newest version, which a model server then serves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import UsageError
from components.model.serving_folder import (
    ModelRecord,
    acknowledge,
    interrupted_rollback,
    read_record,
    restore,
    versions,
)
from pipeline.metadata.address import Address
from pipeline.metadata.stores import server
from pipeline.pushed_models import serving_folders
from pipeline.run_lock import lock_for_changes


@dataclass(frozen=True)
class Restored:
    """An older model that serves again; `record.restored_from` is the version it was copied from."""

    record: ModelRecord
    folder: Path  # folder of all versions
    earlier: bool  # True if an earlier rollback pushed it and was interrupted before it reported that


def roll_back(
    version: int | None = None,
    *,
    pipeline: str | None = None,
    runs: Path = Path("runs"),
    report: Callable[[Restored], None] | None = None,
) -> Restored:
    """Push an older model again, as the newest version. Later runs do not push the replaced model again.

    Args:
        version: the version to return to; None for the newest whose model neither serves nor was rolled back.
        pipeline: name of the pipeline; None if only one has pushed models.
        runs: folder of the run folders.
        report: called with the result before this rollback counts as done. If the process is killed before that,
            repeating the call returns the same result instead of going back one more version.

    Returns:
        The model that serves again.

    Raises:
        UsageError: if there is no such pipeline or version, the version already serves, a record cannot be read, or
            the folder cannot be written.
        AnotherRun: if a run of the pipeline is running.
        DataRefused: if the version's files were changed after the push.
    """
    folder = _serving_folder(pipeline, runs)
    address = server() or Address(file=folder.parent / "metadata.db")
    try:
        with lock_for_changes(folder.parent, folder.parent.name, address):
            record = interrupted_rollback(folder)
            earlier = record is not None and version in (None, record.restored_from)
            if record is None or not earlier:
                record = restore(folder, _version_before(folder) if version is None else version)
            restored = Restored(record, folder, earlier)
            if report:
                report(restored)
            acknowledge(folder)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}): free disk space or "
            "change the permissions, then roll back again"
        ) from None
    return restored


def _serving_folder(pipeline: str | None, runs: Path) -> Path:
    folders = {folder.parent.name: folder for folder in serving_folders(runs)}
    if pipeline is None and len(folders) > 1:
        raise UsageError(f"several pipelines have pushed models: choose one with --pipeline {'|'.join(folders)}")
    name = pipeline or next(iter(folders))
    if name not in folders:
        raise UsageError(f"--pipeline {name}: it has no pushed models; these pipelines have: {', '.join(folders)}")
    return folders[name]


def _version_before(folder: Path) -> int:
    """Return the newest version whose model neither serves nor was rolled back."""
    records = [read_record(folder / str(version)) for version in versions(folder)]
    serving = records[-1]
    for record in reversed(records):
        if record.model not in (serving.model, *serving.withdrawn):
            return record.version
    raise ValueError(
        f"{folder} has no model to return to, except version {serving.version}, which serves, and rolled-back models"
    )

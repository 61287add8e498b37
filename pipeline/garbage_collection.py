"""Garbage collection: removal of artifact files that nothing needs any more, recorded in ML Metadata."""

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.data.ingest.source import Progress, no_progress
from components.errors import DataRefused, NotFound, StoreError, UsageError
from components.model.serving_folder import read_record, versions
from pipeline.error_messages import disk_full_message, is_disk_full
from pipeline.metadata.address import ADDRESS, Address
from pipeline.metadata.garbage import MONITOR_SCRATCH, garbage, is_own_folder, remove_folder
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Artifact
from pipeline.metadata.stores import server
from pipeline.run_lock import lock_for_changes

_BATCH = 50  # artifacts removed before each update of the store
_ABANDONED = 7 * 86_400.0  # seconds without a new file after which a monitor no longer uses its temporary folder


@dataclass(frozen=True)
class Removed:
    """An artifact whose files were removed, or would be removed without `dry_run`."""

    pipeline: str
    id: int
    type: str
    uri: str
    bytes: int


@dataclass(frozen=True)
class Collection:
    """Garbage of one pipeline."""

    pipeline: str
    root: Path  # folder of the artifacts
    removed: list[Removed]
    refused: list[Artifact]  # artifacts at a path that no run writes, whose files stay


def collect_garbage(
    keep: int,
    *,
    pipeline: str | None = None,
    dry_run: bool = False,
    runs: Path = Path("runs"),
    progress: Progress = no_progress,
    ended: Callable[[Collection], None] | None = None,
) -> list[Collection]:
    """Remove the files of artifacts that no kept run, no pushed model and no comparison with an earlier span needs.

    ML Metadata then marks the artifacts as deleted, and the cache no longer returns them.

    Args:
        keep: number of newest runs of each pipeline whose artifacts are kept.
        pipeline: name of the only pipeline to collect from; None for all.
        dry_run: find the garbage without removing it.
        runs: folder of the run folders.
        progress: called with the numbers of removed artifacts and of all artifacts to remove.
        ended: called with the result of each pipeline before the next one begins.

    Returns:
        One result for each pipeline.

    Raises:
        UsageError: if `keep` is not positive, there is no such pipeline or store, or a folder cannot be removed.
        AnotherRun: if a run of one of the pipelines is running.
        DataRefused: if the record of a pushed model cannot be read, so that its files are not known.
        StoreError: if ML Metadata cannot be read or written.
    """
    if keep < 1:
        raise UsageError(f"keep is {keep}: it must be at least 1, for the newest run")
    folders = {folder.parent.name: folder.parent.resolve() for folder in sorted(runs.glob("*/root"))}
    if not folders:
        raise NotFound(f"--runs {runs}: no run folder with artifacts there; name the folder that holds the run folders")
    if pipeline is not None and pipeline not in folders:
        raise NotFound(
            f"--pipeline {pipeline}: it has no artifacts below {runs}; these pipelines have: {', '.join(folders)}"
        )
    collections = []
    for name in [pipeline] if pipeline else folders:
        collections.append(_collect(name, folders[name], keep, dry_run, progress))
        if ended:
            ended(collections[-1])
    return collections


def _collect(name: str, folder: Path, keep: int, dry_run: bool, progress: Progress) -> Collection:
    file = folder / "metadata.db"
    address = server() or Address(file=file)
    if address.file and not file.exists():
        raise NotFound(
            f"{file} is missing: if the store of {name} is on a server, set the environment variable {ADDRESS} to "
            "its address"
        )
    root = folder / "root"
    with lock_for_changes(folder, name, address):
        candidates = _garbage(folder, address, keep)
        own = [artifact for artifact in candidates if is_own_folder(artifact.uri, root)]
        removed = [
            Removed(name, artifact.id, artifact.type, artifact.uri, _bytes(Path(artifact.uri))) for artifact in own
        ]
        if not dry_run:
            try:
                _remove(own, root, address, progress)
                _remove_unlinked(folder / "measured")
                _remove_abandoned(folder)
            except Exception as error:
                if not is_disk_full(error):
                    raise
                remedy = "by removing other files there, because the store needs some space to record the removal"
                raise StoreError(disk_full_message(folder, remedy)) from error
    return Collection(name, root, removed, [artifact for artifact in candidates if artifact not in own])


def _garbage(folder: Path, address: Address, keep: int) -> list[Artifact]:
    serving = folder / "serving"
    try:
        pushed = [read_record(serving / str(version)) for version in versions(serving)]
    except ValueError as error:  # the models that must stay are then unknown
        raise DataRefused(str(error)) from None
    with reader(address) as store:
        return garbage(store, folder.name, folder / "root", keep, pushed)


def _remove(artifacts: list[Artifact], root: Path, address: Address, progress: Progress) -> None:
    from pipeline.metadata.writer import MetadataStore, mark_deleted, mark_for_deletion

    store = MetadataStore(address.connection_config())
    # Mark before the first removal: if this process is killed, the cache must not return a half-removed artifact.
    mark_for_deletion(store, [artifact.id for artifact in artifacts])
    for start in range(0, len(artifacts), _BATCH):
        batch = artifacts[start : start + _BATCH]
        progress("removing", start, len(artifacts))
        for artifact in batch:
            remove_folder(root, *Path(artifact.uri).relative_to(root).parts)
            if Path(artifact.uri).exists():
                raise UsageError(f"{artifact.uri} cannot be removed: allow this user to write there, then start again")
        mark_deleted(store, [artifact.id for artifact in batch])
        progress("removing", start + len(batch), len(artifacts))


def _remove_unlinked(folder: Path) -> None:
    """Remove the files of a folder that have no second name in an artifact.

    On a disk that does not allow a second name, all of them are removed.
    """
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.stat().st_nlink == 1:
            file.unlink()


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders that killed calls of `vitpipe monitor` left in a run folder.

    A monitor holds no lock and may run on another machine, so only the age of a folder shows that it is not used.
    """
    for scratch in folder.glob(f"{MONITOR_SCRATCH}*"):
        with contextlib.suppress(FileNotFoundError):  # its monitor has just ended
            if time.time() - scratch.lstat().st_mtime > _ABANDONED:
                shutil.rmtree(scratch, ignore_errors=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

"""The folder that a model server watches: one sub-folder for each version, of which the highest serves.

Imports neither TensorFlow nor TFX: `predict`, `models` and `rollback` need not wait for them.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, Field

from components.data.ingest import safe_files
from components.errors import DataRefused
from components.model.evaluator.judgement import ModelFigures
from trainer.disk import atomic_write, sync, sync_tree
from trainer.settings import Group

if TYPE_CHECKING:
    from tfx.types import Artifact

RECORD = "model.json"
_TEMPORARY = ".tmp-"
_ROLLBACK = ".rollback.json"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # TensorFlow Serving keeps them in 64 bits


class ModelId(Group):
    """Identity of a Model artifact in ML Metadata, which stays the same if the run folder is moved.

    It includes the time of creation, because a new store may use the same folder again.
    """

    uri: str
    created_ms: int

    @property
    def place(self) -> str:
        """Path of the artifact inside the run folder's `root`, `<node>/<key>/<execution>`."""
        return self.uri.rpartition("/root/")[2]

    @property
    def _identity(self) -> tuple[str, int]:
        return self.place, self.created_ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelId) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def names(self, model: Artifact) -> bool:
        return self == ModelId(uri=model.uri, created_ms=model.mlmd_artifact.create_time_since_epoch)


class Rollback(Group):
    """Content of `.rollback.json`, which exists from before the rename of a roll-back until its result was printed.

    It distinguishes the repetition of a killed roll-back from a roll-back that is to go one version further.
    """

    version: int  # the new version that the roll-back pushes
    restores: int


class ModelRecord(Group):
    """`model.json`, inside every pushed version: where the model came from and what it is."""

    version: int
    pushed_at: AwareDatetime
    run_id: str
    model: ModelId
    span: int  # trained on
    data_digest: str  # of the span's shards
    code_version: str
    settings_digest: str  # sha256 of the resolved settings, which the run keeps in full
    metrics: dict[str, float]  # on the gate's test set
    signatures: list[str]
    classes: list[str]  # in index order
    files: dict[str, str] = Field({})  # sha256 by path, of everything but this record; filled in by `push`
    override: str | None = None  # a person's reason, where the gate was overruled
    restored_from: int | None = None  # the version that a roll-back copied
    withdrawn: tuple[ModelId, ...] = ()  # models that were rolled back, and are not pushed again


def versions(folder: Path) -> list[int]:
    """Return the pushed versions, oldest first; an empty list if the folder does not exist.

    A version is a folder, and not a link, whose name is a number in ASCII digits without leading zeros, as a model
    server writes it.
    """
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
    )


def serving_now(folder: Path) -> ModelRecord | None:
    """The record of the version that serves, None before the first push."""
    pushed = versions(folder)
    return read_record(folder / str(pushed[-1])) if pushed else None


def read_record(version_folder: Path) -> ModelRecord:
    """Raises ValueError, naming the file, where there is no record or none of ours."""
    file = version_folder / RECORD
    try:
        return ModelRecord.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: invalid JSON or UTF-8
        raise ValueError(
            f"{file} does not say where the model came from ({type(error).__name__}): somebody else pushed it, or an "
            f"older vitpipe; move {version_folder} away"
        ) from error


def pushed_by(folder: Path) -> dict[str, str]:
    """Return the first version that each run pushed, by run. A version without a readable record is left out."""
    first_versions: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for version in versions(folder):
            with contextlib.suppress(ValueError):
                record = read_record(folder / str(version))
                if record.restored_from is None:
                    first_versions.setdefault(record.run_id, str(version))
    return first_versions


def problems(version_folder: Path) -> list[str]:
    """One line for each file that is not as it was pushed. Raises ValueError where there is no record."""
    expected, found = read_record(version_folder).files, _digests(version_folder)
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            lines.append(f"{version_folder / name}: expected sha256 {expected[name]}, found no such file")
        elif name not in expected:
            lines.append(f"{version_folder / name}: expected no such file, found one that was not pushed")
        elif expected[name] != found[name]:
            lines.append(f"{version_folder / name}: expected sha256 {expected[name]}, found {found[name]}")
    return lines


def push(model: Path, folder: Path, record: ModelRecord) -> None:
    """Copy the SavedModel folder `model` to `folder/<version>` with its record, so that it appears complete.

    Raises OSError when the version is there already or the disk is full; `folder` is then as it was.
    """
    target = folder / str(record.version)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_TEMPORARY}*"):  # of a push that was killed: one run at a time
        shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
    # Beside the target, because a rename is atomic within one file system only; a model server reads numbers alone.
    temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{target.name}-", dir=folder))
    try:
        shutil.copytree(model, temporary, dirs_exist_ok=True)
        whole = record.model_copy(update={"files": _digests(temporary)})
        (temporary / RECORD).write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp's 0700 would shut out a model server that runs as somebody else
        sync_tree(temporary)
        temporary.rename(target)
        sync(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def push_candidate(
    source: Path,
    folder: Path,
    keep: int,
    *,
    model: ModelId,
    figures: ModelFigures,
    signatures: list[str],
    run_id: str,
    span: int,
    data_digest: str,
    code_version: str,
    settings_digest: str,
    override: str | None = None,
) -> ModelRecord:
    """Push the SavedModel folder `source` as the next version, and keep the newest `keep`.

    The other arguments are fields of its `ModelRecord`; the metrics come from `figures`.
    """
    serving = serving_now(folder)
    record = ModelRecord(
        version=max(versions(folder), default=0) + 1,
        pushed_at=datetime.now(UTC),
        metrics={
            "accuracy": figures.accuracy,
            "worst_class_accuracy": min(figures.class_accuracy.values()),
            "top_3": figures.top_3,
            "log_loss": figures.log_loss,
            "calibration_error": figures.calibration_error,
        },
        signatures=signatures,
        classes=figures.classes,
        model=model,
        withdrawn=tuple(one for one in serving.withdrawn if one != model) if serving else (),
        run_id=run_id,
        span=span,
        data_digest=data_digest,
        code_version=code_version,
        settings_digest=settings_digest,
        override=override,
    )
    push(source, folder, record)
    prune(folder, keep)
    return record


def restore(folder: Path, version: int) -> ModelRecord:
    """Push an older version again, as a new and so the serving one; the model that served is withdrawn.

    `interrupted` returns the record until `acknowledge` is called, which is due once the result was printed.
    Raises ValueError when there is no such version or it serves already, DataRefused when its files are not as pushed.
    """
    there = versions(folder)
    if version not in there:
        known = ", ".join(map(str, there)) or "none"
        raise ValueError(f"no version {version} in {folder}: there are {known} (older ones may have been removed)")
    source = folder / str(version)
    old, now = read_record(source), read_record(folder / str(there[-1]))
    if old.model == now.model:
        raise ValueError(f"version {version} in {folder} is the model that serves already, as version {now.version}")
    if lines := problems(source):
        raise DataRefused("; ".join(lines))
    withdrawn = {*now.withdrawn, now.model} - {old.model}
    record = old.model_copy(
        update={
            "version": there[-1] + 1,
            "pushed_at": datetime.now(UTC),
            "restored_from": version,
            "withdrawn": tuple(sorted(withdrawn, key=lambda model: model.created_ms)),
        }
    )
    note = Rollback(version=record.version, restores=version)
    with atomic_write(folder / _ROLLBACK) as file:
        file.write(note.model_dump_json().encode())
    try:
        push(source, folder, record)
    except BaseException:
        acknowledge(folder)  # nothing was rolled back
        raise
    return record


def interrupted_rollback(folder: Path) -> ModelRecord | None:
    """Return the record that a killed roll-back pushed, if that version still serves; None otherwise."""
    try:
        note = Rollback.model_validate_json((folder / _ROLLBACK).read_text("utf-8"))
    except (OSError, ValueError):  # the note is missing or incomplete
        return None
    serving = serving_now(folder)
    if serving is None or (serving.version, serving.restored_from) != (note.version, note.restores):
        return None
    return serving


def acknowledge(folder: Path) -> None:
    """Forget the last roll-back, because its result was printed."""
    with contextlib.suppress(OSError):
        (folder / _ROLLBACK).unlink()


def prune(folder: Path, keep: int) -> list[int]:
    """Remove all versions but the newest `keep`, and give their numbers."""
    removed = versions(folder)[:-keep]
    for version in removed:
        # Renamed first: a model server that lists the folder sees a whole version or none.
        doomed = (folder / str(version)).rename(folder / f"{_TEMPORARY}removed-{version}")
        shutil.rmtree(doomed, ignore_errors=True)  # what stays is removed by the next push
    return removed


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            digests[name] = "of a link, and links are not pushed"
        elif path.is_file() and name != RECORD:
            digests[name] = safe_files.file_digest(path)
    return digests

"""The folder that a model server watches. It has a subfolder for each version, and the highest version serves.

Imports neither TensorFlow nor TFX, so that the commands `predict`, `models` and `rollback` start quickly.
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
CARD = "README.md"  # the model card, in a pushed version
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

    def identifies(self, model: Artifact) -> bool:
        """Return whether this is the identity of a Model artifact."""
        return self == ModelId(uri=model.uri, created_ms=model.mlmd_artifact.create_time_since_epoch)


class Rollback(Group):
    """Content of `.rollback.json`, which a rollback writes before it pushes, and removes after its result was printed.

    With this file, repeating a killed rollback returns its result instead of going back one more version.
    """

    version: int  # new version that the rollback pushes
    restores: int  # older version that it copies


class ModelRecord(Group):
    """Content of `model.json` in every pushed version: origin and properties of the model."""

    version: int
    pushed_at: AwareDatetime
    run_id: str
    model: ModelId
    span: int  # that the model was trained on
    data_digest: str  # digest of the shards of the span, or of all spans of a window
    code_version: str
    settings_digest: str  # sha256 of the resolved settings, which the run records in full
    metrics: dict[str, float]  # figures on the gate's test set
    signatures: list[str]
    classes: list[str]  # in index order
    files: dict[str, str] = Field({})  # sha256 of each file but this record, by path; `push` sets it
    override: str | None = None  # reason of a person who overruled the gate
    restored_from: int | None = None  # version that a rollback copied
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
    """Return the record of the version that serves; None before the first push.

    Raises:
        ValueError: If the version has no valid record.
    """
    pushed = versions(folder)
    return read_record(folder / str(pushed[-1])) if pushed else None


def read_record(version_folder: Path) -> ModelRecord:
    """Read the record of a version.

    Raises:
        ValueError: If the record is missing or invalid. The message names the file.
    """
    file = version_folder / RECORD
    try:
        return ModelRecord.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: invalid JSON or UTF-8
        raise ValueError(
            f"{file} does not say where the model came from ({type(error).__name__}): another program or an older "
            f"vitpipe pushed this version; move {version_folder} away"
        ) from error


def version_by_run(folder: Path) -> dict[str, str]:
    """Return the first version that each run pushed, by run id. A version without a valid record is left out."""
    first_versions: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for version in versions(folder):
            with contextlib.suppress(ValueError):
                record = read_record(folder / str(version))
                if record.restored_from is None:
                    first_versions.setdefault(record.run_id, str(version))
    return first_versions


def problems(version_folder: Path) -> list[str]:
    """Compare the files of a version with the digests in its record.

    Returns:
        One line for each file that was changed, removed or added after the push.

    Raises:
        ValueError: If the version has no valid record.
    """
    expected, actual = read_record(version_folder).files, _digests(version_folder)
    lines = []
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            lines.append(f"{version_folder / name}: expected sha256 {expected[name]}, but the file is missing")
        elif name not in expected:
            lines.append(f"{version_folder / name}: unexpected file, which was not pushed")
        elif expected[name] != actual[name]:
            lines.append(f"{version_folder / name}: expected sha256 {expected[name]}, found {actual[name]}")
    return lines


def push(model: Path, folder: Path, record: ModelRecord, card: str | None = None) -> None:
    """Copy a SavedModel to the folder, with its record and card, so that a model server sees all of it or nothing.

    Args:
        model: Folder of the SavedModel.
        folder: The folder that a model server watches.
        record: Record of the model, whose `version` names the new sub-folder.
        card: Model card to write; None if `model` is a pushed version, whose card is copied with it.

    Raises:
        OSError: If the version exists already, or the disk is full. The folder is then unchanged.
    """
    target = folder / str(record.version)
    folder.mkdir(parents=True, exist_ok=True)
    # Only one run at a time can push, so temporary files are those of a push that was killed.
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
    # The temporary folder is next to the target, because a rename is atomic only within one file system. A model server
    # ignores it, because its name is not a number.
    temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{target.name}-", dir=folder))
    try:
        shutil.copytree(model, temporary, dirs_exist_ok=True)
        if card is not None:
            (temporary / CARD).write_text(card, encoding="utf-8")
        complete = record.model_copy(update={"files": _digests(temporary)})
        (temporary / RECORD).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # with 0700, set by mkdtemp, a model server of another user could not read it
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
    card: str,
    override: str | None = None,
) -> ModelRecord:
    """Push a model as the next version, and remove old versions.

    Args:
        source: Folder of the SavedModel.
        folder: The folder that a model server watches.
        keep: Number of newest versions to keep.
        model: Identity of the Model artifact.
        figures: Figures of the model, which become the metrics of the record.
        signatures: Names of the SavedModel's signatures.
        run_id: Id of the run that pushes the model. An earlier run may have trained it.
        span: Span that the model was trained on.
        data_digest: Digest of the shards of the span, or of all spans of a window.
        code_version: Version of the code of that run.
        settings_digest: sha256 of the resolved settings of that run.
        card: The model card, from `components.model.model_card`.
        override: Reason of a person who overruled the gate, if any.

    Returns:
        The record of the new version.

    Raises:
        OSError: If the disk is full.
        ValueError: If the serving version has no valid record.
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
        withdrawn=tuple(model_id for model_id in serving.withdrawn if model_id != model) if serving else (),
        run_id=run_id,
        span=span,
        data_digest=data_digest,
        code_version=code_version,
        settings_digest=settings_digest,
        override=override,
    )
    push(source, folder, record, card)
    prune(folder, keep)
    return record


def restore(folder: Path, version: int) -> ModelRecord:
    """Roll back: push an older version again as the newest, which then serves, and withdraw the model that served.

    Call `acknowledge` after the result was printed. Until then, `interrupted_rollback` returns the record.

    Args:
        folder: The folder that a model server watches.
        version: Version to restore.

    Returns:
        The record of the new version.

    Raises:
        ValueError: If the version does not exist, serves already, or has no valid record.
        DataRefused: If files of the version were changed after the push.
        OSError: If the disk is full.
    """
    existing = versions(folder)
    if version not in existing:
        known = ", ".join(map(str, existing)) or "none"
        raise ValueError(f"no version {version} in {folder}: there are {known} (older ones may have been removed)")
    source = folder / str(version)
    old, now = read_record(source), read_record(folder / str(existing[-1]))
    if old.model == now.model:
        raise ValueError(f"version {version} in {folder} already serves, as version {now.version}")
    if lines := problems(source):
        raise DataRefused("; ".join(lines))
    withdrawn = {*now.withdrawn, now.model} - {old.model}
    record = old.model_copy(
        update={
            "version": existing[-1] + 1,
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
    """Return the record that a killed rollback pushed, if that version still serves; None otherwise."""
    try:
        note = Rollback.model_validate_json((folder / _ROLLBACK).read_text("utf-8"))
    except (OSError, ValueError):  # the note is missing or incomplete
        return None
    serving = serving_now(folder)
    if serving is None or (serving.version, serving.restored_from) != (note.version, note.restores):
        return None
    return serving


def acknowledge(folder: Path) -> None:
    """Mark the last rollback as finished, after its result was printed."""
    with contextlib.suppress(OSError):
        (folder / _ROLLBACK).unlink()


def prune(folder: Path, keep: int) -> list[int]:
    """Remove old versions.

    Args:
        folder: The folder that a model server watches.
        keep: Number of newest versions to keep.

    Returns:
        The removed versions.
    """
    removed = versions(folder)[:-keep]
    for version in removed:
        # The folder is renamed first, so that a model server never sees half a version.
        renamed = (folder / str(version)).rename(folder / f"{_TEMPORARY}removed-{version}")
        shutil.rmtree(renamed, ignore_errors=True)  # the next push removes what is left
    return removed


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            digests[name] = "a link, which is never pushed"
        elif path.is_file() and name != RECORD:
            digests[name] = safe_files.file_digest(path)
    return digests

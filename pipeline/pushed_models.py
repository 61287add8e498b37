"""Pushed models: listing, choice of the newest, and verification that each is unmodified."""

from dataclasses import dataclass, replace
from pathlib import Path

from components.errors import DataRefused, StoreError, UsageError
from components.model.serving_folder import (
    RECORD,
    ModelId,
    ModelRecord,
    problems,
    read_record,
    version_by_run,
    versions,
)
from pipeline.metadata import relocation
from pipeline.metadata.address import Address, NoStoreError
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Artifact, Run
from pipeline.metadata.stores import server
from pipeline.result.run_result import PUSHED, RunResult


@dataclass(frozen=True)
class PushedModel:
    """A pushed version of a pipeline's model."""

    pipeline: str
    folder: Path  # folder of the version
    record: ModelRecord
    serving: bool  # True for the highest version, which a model server serves


@dataclass(frozen=True)
class Listing:
    """Pushed models, and the versions whose record cannot be read."""

    models: list[PushedModel]  # the oldest of each pipeline first
    unreadable: list[str]  # a reason for each


@dataclass(frozen=True)
class Verification:
    """Outcome of comparing every pushed file with its digest, with a line for each problem."""

    versions: int  # number of versions that were checked
    changed: list[str]  # files that differ from their digest
    unreadable: list[str]  # records that cannot be read
    warnings: list[str]  # versions whose artifact is gone, and stores that cannot be read


def list_models(runs: Path = Path("runs")) -> Listing:
    """Return every pushed version of the pipelines below `runs`. Raises UsageError if there are no versions."""
    models: list[PushedModel] = []
    unreadable: list[str] = []
    for folder in serving_folders(runs):
        existing = versions(folder)
        for version in existing:
            try:
                record = read_record(folder / str(version))
            except ValueError as error:
                unreadable.append(str(error))
            else:
                models.append(PushedModel(folder.parent.name, folder / str(version), record, version == existing[-1]))
    return Listing(models, unreadable)


def verify_models(runs: Path = Path("runs")) -> Verification:
    """Compare every file of the pushed models with the digest in its record, and check that their artifacts exist.

    Raises:
        UsageError: if no model is pushed below `runs`.
    """
    serving = serving_folders(runs)
    pushed = [folder / str(version) for folder in serving for version in versions(folder)]
    changed: list[str] = []
    unreadable: list[str] = []
    warnings: list[str] = []
    for folder in pushed:
        try:
            changed += problems(folder)
        except ValueError as error:
            unreadable.append(str(error))
    for folder in serving:
        try:
            address = server() or Address(file=folder.parent / "metadata.db")
            warnings += relocation.problems(address, folder.parent.resolve())
        except StoreError as error:
            warnings.append(str(error))
    return Verification(len(pushed), changed, unreadable, warnings)


def serving_folders(runs: Path) -> list[Path]:
    """Return the folders of pushed models below `runs`. Raises UsageError if there are no such folders."""
    folders = [folder for folder in sorted(runs.glob("*/serving")) if versions(folder)]
    if not folders:
        raise UsageError(
            f"no pushed model below {runs}: push one with `vitpipe run`, or name another folder with --runs"
        )
    return folders


def all_pushed(runs: Path) -> dict[str, Path]:
    """Return the version folders of all pipelines below `runs` by "pipeline/version", the newest of each first."""
    return {
        f"{folder.parent.name}/{version}": folder / str(version)
        for folder in sorted(runs.glob("*/serving"))
        for version in reversed(versions(folder))
    }


def newest_pushed(runs: Path) -> Path:
    """Return the version folder that was pushed last in any pipeline below `runs`.

    Raises:
        UsageError: if there is no pushed model.
        DataRefused: if the record of a pushed model cannot be read.
    """
    pushed = [folder / str(version) for folder in sorted(runs.glob("*/serving")) for version in versions(folder)[-1:]]
    if not pushed:
        raise UsageError(f"no pushed model below {runs}: push one with `vitpipe run`, or name a folder with --model")
    try:
        return max(pushed, key=lambda folder: read_record(folder).pushed_at)
    except ValueError as error:
        raise DataRefused(str(error)) from None


def check(folder: Path, trusted: bool = False) -> None:
    """Check that a folder may be loaded as a model: it holds an unmodified pushed SavedModel.

    Args:
        folder: a version folder, or another folder with a SavedModel.
        trusted: accept any SavedModel, because the user trusts it.

    Raises:
        UsageError: if there is no SavedModel, or it has no record and is not trusted.
        DataRefused: if it was modified after its push.
    """
    if not (folder / "saved_model.pb").is_file():
        raise UsageError(f"{folder} holds no SavedModel: name a version folder, for example runs/sample/serving/1")
    if trusted:
        return
    if not (folder / RECORD).is_file():
        raise UsageError(
            f"{folder} has no {RECORD}, so its origin is unknown. A SavedModel is a program that can read and write "
            "files with your permissions. Name a pushed version, or load this one anyway with --trust-model"
        )
    try:
        changed = problems(folder)
    except ValueError as error:
        raise DataRefused(str(error)) from None
    if changed:
        raise DataRefused(f"{'; '.join(changed)}: this is not the model that was pushed; push or restore it again")


def pushed_artifact(record: ModelRecord, run: Run) -> tuple[str, Artifact] | None:
    """Return the artifact of a pushed version, with the name of the channel by which executions read it.

    A rollback or a person's blessing pushes without a PushedModel, so the artifact of their versions is the Model.

    Args:
        record: the record of the version.
        run: the run that the record names.

    Returns:
        The channel and the artifact; None if ML Metadata knows neither the push nor the model.
    """
    pushed, model = run.output("Pusher", "pushed_model"), run.output("Trainer", "model")
    properties = pushed.properties if pushed else {}
    if pushed and (properties.get("pushed"), properties.get("pushed_version")) == (1, str(record.version)):
        return "pushed_model", pushed
    if model and ModelId(uri=model.uri, created_ms=model.created_ms) == record.model:
        return "model", model
    return None


def record_pushes(address: Address, serving: Path) -> None:
    """Record the pushes of runs that were killed after the push, before they recorded it in ML Metadata.

    Args:
        address: the address of the store.
        serving: the folder of the versions, whose records name the runs.
    """
    pushed = version_by_run(serving)
    try:
        with reader(address) as store:
            unrecorded = [
                run.name
                for run in store.runs_named(list(pushed))
                if RunResult(replace(run, version=None)).pushed is None
            ]
    except NoStoreError:  # the first run creates the store
        return
    if unrecorded:
        from pipeline.metadata.writer import MetadataStore, record

        for name in unrecorded:
            record(MetadataStore(address.connection_config()), name, **{PUSHED: pushed[name]})

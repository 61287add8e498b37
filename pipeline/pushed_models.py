"""The pushed model that a command asks, and whether it is still the one that was pushed."""

from dataclasses import replace
from pathlib import Path

from components.errors import DataRefused, SettingsError
from components.model.serving_folder import RECORD, problems, pushed_by, read_record, versions
from pipeline.metadata.address import Address, NoStore
from pipeline.metadata.reader import reader
from pipeline.result.run_result import PUSHED, RunResult


def all_pushed(runs: Path) -> dict[str, Path]:
    """The version folders of all pipelines below `runs`, by "pipeline/version"; of each pipeline the newest first."""
    return {
        f"{folder.parent.name}/{version}": folder / str(version)
        for folder in sorted(runs.glob("*/serving"))
        for version in reversed(versions(folder))
    }


def newest_pushed(runs: Path) -> Path:
    """The version folder pushed last, of all pipelines below `runs`.

    Raises SettingsError where there is none, DataRefused where a record does not say when it was pushed.
    """
    pushed = [folder / str(version) for folder in sorted(runs.glob("*/serving")) for version in versions(folder)[-1:]]
    if not pushed:
        raise SettingsError(f"no pushed model below {runs}: `vitpipe run` makes one, or name a folder with --model")
    try:
        return max(pushed, key=lambda folder: read_record(folder).pushed_at)
    except ValueError as error:
        raise DataRefused(str(error)) from None


def check(folder: Path, trusted: bool = False) -> None:
    """Check that a folder may be loaded as a model: it holds an unmodified pushed SavedModel.

    Args:
        folder: a version folder, or any other with a SavedModel.
        trusted: accept any SavedModel, because the user trusts it.

    Raises:
        SettingsError: if there is no SavedModel, or it has no record and is not trusted.
        DataRefused: if it was modified after its push.
    """
    if not (folder / "saved_model.pb").is_file():
        raise SettingsError(f"{folder} holds no SavedModel: name a version folder, for example runs/sample/serving/1")
    if trusted:
        return
    if not (folder / RECORD).is_file():
        raise SettingsError(
            f"{folder} has no {RECORD}, so its origin is unknown. A SavedModel is a program that can read and write "
            "files with your permissions. Name a pushed version, or load this one anyway with --trust-model"
        )
    try:
        changed = problems(folder)
    except ValueError as error:
        raise DataRefused(str(error)) from None
    if changed:
        raise DataRefused(f"{'; '.join(changed)}: this is not the model that was pushed; push or restore it again")


def record_pushes(address: Address, serving: Path) -> None:
    """Record in ML Metadata which versions were pushed by runs that were killed before they recorded it.

    Args:
        address: the address of the store.
        serving: the folder of the versions, whose records name the runs.
    """
    pushed = pushed_by(serving)
    try:
        with reader(address) as store:
            unrecorded = [
                run.name
                for run in store.runs_named(list(pushed))
                if RunResult(replace(run, version=None)).pushed is None
            ]
    except NoStore:  # the first run creates the store
        return
    if unrecorded:
        from pipeline.metadata.writer import MetadataStore, record

        for name in unrecorded:
            record(MetadataStore(address.connection_config()), name, **{PUSHED: pushed[name]})

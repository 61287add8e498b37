"""The pushed model that a command asks, and whether it is still the one that was pushed."""

from pathlib import Path

from components.ingest import DataRefused
from components.serving_folder import RECORD, problems, read_record, versions
from pipeline.config import SettingsError


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


def check(folder: Path) -> None:
    """Raises SettingsError where `folder` holds no SavedModel, DataRefused where it is not as it was pushed."""
    if not (folder / "saved_model.pb").is_file():
        raise SettingsError(f"{folder} holds no SavedModel: name a version folder, for example runs/sample/serving/1")
    if (folder / RECORD).is_file():
        try:
            changed = problems(folder)
        except ValueError as error:
            raise DataRefused(str(error)) from None
        if changed:
            raise DataRefused(f"{'; '.join(changed)}: this is not the model that was pushed; push or restore it again")

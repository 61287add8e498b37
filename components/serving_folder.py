"""The folder a model server watches: one sub-folder a version, the highest one serves."""

from datetime import datetime
from pathlib import Path

from trainer.settings import Group

RECORD = "model.json"


class ModelRecord(Group):
    """`model.json`, inside every pushed version: where the model came from."""

    version: int
    pushed_at: datetime
    run_id: str
    model_id: int  # of the Model artifact in ML Metadata
    model_uri: str
    accuracy: float  # on the gate's test set
    classes: list[str]


def versions(folder: Path) -> list[int]:
    """Pushed versions, oldest first. A folder that does not exist has none."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal())


def serving_now(folder: Path) -> ModelRecord | None:
    """The record of the version that serves, None before the first push."""
    pushed = versions(folder)
    return read_record(folder / str(pushed[-1])) if pushed else None


def read_record(version_folder: Path) -> ModelRecord:
    return ModelRecord.model_validate_json((version_folder / RECORD).read_text())

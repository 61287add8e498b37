"""The folder a model server watches: one sub-folder a version, the highest one serves."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from trainer.settings import Group

if TYPE_CHECKING:  # `predict` reads records too, and need not wait for TFX
    from tfx.types import Artifact

RECORD = "model.json"


class ModelRecord(Group):
    """`model.json`, inside every pushed version: where the model came from."""

    version: int
    pushed_at: datetime
    run_id: str
    # Of the Model artifact in ML Metadata. A new store may give the same id and folder again, at another time.
    model_id: int
    model_uri: str
    model_created_ms: int
    accuracy: float  # on the gate's test set
    classes: list[str]

    def names(self, model: Artifact) -> bool:
        """Whether this artifact is the model that was pushed."""
        return (model.uri, model.mlmd_artifact.create_time_since_epoch) == (self.model_uri, self.model_created_ms)


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
    """Raises ValueError, naming the file, where there is no record or none of ours."""
    file = version_folder / RECORD
    try:
        return ModelRecord.model_validate_json(file.read_text())
    except (OSError, ValidationError) as error:
        raise ValueError(
            f"{file} does not say where the model came from ({type(error).__name__}): only `vitpipe` may push here; "
            f"move {version_folder} away"
        ) from error

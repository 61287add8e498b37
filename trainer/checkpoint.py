"""Checkpoints: the state of a training on disk, from which a killed training continues."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.disk import atomic_write

log = logging.getLogger(__name__)

_INFO = "info"  # entry of an archive, as JSON: the epoch and the caller's `info`


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after `epoch` epochs: its arrays by name, and other values in `info`."""

    path: Path
    epoch: int
    arrays: dict[str, np.ndarray]
    info: dict[str, Any]


class Checkpoints:
    """Numbered checkpoints of one training.

    A checkpoint is a NumPy archive without pickled objects, whose entries carry checksums. It is written completely or
    not at all.

    Args:
        folder: Folder of this training's checkpoints. Its name is a digest of everything that affects the training.
            Its sibling folders hold the checkpoints of other trainings.
        keep: Number of newest checkpoints to keep. The second newest replaces a newest one that is damaged.
        others: Number of sibling folders to keep, those modified last.
    """

    def __init__(self, folder: Path, keep: int = 2, others: int = 3) -> None:
        self.folder, self.keep, self.others = folder, keep, others

    def save(self, epoch: int, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> Path:
        """Write a checkpoint, then remove old checkpoints and the folders of old trainings.

        Args:
            epoch: Number of completed epochs.
            arrays: Arrays by name.
            info: Other values, which JSON can represent.

        Returns:
            Path of the checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch-{epoch:05d}.npz"
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, **arrays, **{_INFO: np.array(json.dumps({"epoch": epoch, **info}))})
        for old in [*self.paths()[self.keep :], *self.folder.glob(".tmp-*")]:
            old.unlink()
        others = [other for other in self.folder.parent.iterdir() if other.is_dir() and other != self.folder]
        for other in sorted(others, key=lambda folder: folder.stat().st_mtime, reverse=True)[self.others :]:
            shutil.rmtree(other)
        return path

    def paths(self) -> list[Path]:
        """Return the paths of all checkpoints, newest first."""
        return sorted(self.folder.glob("epoch-*.npz"), reverse=True)

    def newest(self, like: dict[str, np.ndarray]) -> Checkpoint | None:
        """Return the newest usable checkpoint.

        A checkpoint that is damaged or belongs to another training is logged and skipped.

        Args:
            like: Arrays with the names, shapes and dtypes that a checkpoint of this training has.

        Returns:
            The checkpoint, or None if no checkpoint is usable.
        """
        for path in self.paths():
            try:
                # NumPy does not close a damaged file that it opened itself.
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                info = json.loads(str(arrays.pop(_INFO)))
                epoch = int(info.pop("epoch"))
            except Exception as error:  # NumPy, zipfile and json raise many types for a damaged archive
                log.warning("checkpoint skipped: %s is damaged (%s)", path, error)
                continue
            if difference := _first_difference(arrays, like):
                log.warning("checkpoint skipped: %s belongs to another training (%s)", path, difference)
                continue
            log.info("continuing from %s", path)
            return Checkpoint(path, epoch, arrays, info)
        return None


def _first_difference(arrays: dict[str, np.ndarray], like: dict[str, np.ndarray]) -> str:
    """Describe the first difference in names, shapes and dtypes; empty if there is no difference."""
    if names := sorted(arrays.keys() ^ like.keys()):
        return f"{len(names)} arrays are missing or unexpected: {names[0]}"
    for name, expected in like.items():
        actual = arrays[name]
        if actual.shape != expected.shape or actual.dtype != expected.dtype:
            return f"{name} is {actual.dtype} {actual.shape}, not {expected.dtype} {expected.shape}"
    return ""

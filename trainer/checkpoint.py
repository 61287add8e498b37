"""The state of a training on disk, so that a killed one goes on where it was."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.disk import whole_file

log = logging.getLogger(__name__)

_INFO = "info"  # the entry of an archive that holds everything but arrays, as JSON


@dataclass(frozen=True)
class Checkpoint:
    """The state after `epoch` epochs, and what else was to be kept."""

    path: Path
    epoch: int
    arrays: dict[str, np.ndarray]
    info: dict[str, Any]


class Checkpoints:
    """Numbered checkpoints of one training in `folder`, which is named by a digest of all that decides its course.

    A checkpoint is a numpy archive without pickled objects, whose entries carry checksums. It is written beside its
    place and renamed into it, and the two newest are kept: one to go on from and one for when that is damaged.
    Of other trainings, in the folder's siblings, the three touched last are kept.
    """

    def __init__(self, folder: Path, keep: int = 2, others: int = 3):
        self.folder, self.keep, self.others = folder, keep, others

    def save(self, epoch: int, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> Path:
        """Write the state after `epoch` epochs; `info` is anything JSON."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch-{epoch:05d}.npz"
        with whole_file(path) as file:
            np.savez(file, allow_pickle=False, **arrays, **{_INFO: np.array(json.dumps({"epoch": epoch, **info}))})
        for old in [*self.paths()[self.keep :], *self.folder.glob(".tmp-*")]:
            old.unlink()
        others = [other for other in self.folder.parent.iterdir() if other.is_dir() and other != self.folder]
        for other in sorted(others, key=lambda one: one.stat().st_mtime, reverse=True)[self.others :]:
            shutil.rmtree(other)
        return path

    def paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("epoch-*.npz"), reverse=True)

    def newest(self, like: dict[str, np.ndarray]) -> Checkpoint | None:
        """The newest checkpoint that is whole and has the names and shapes of `like`.

        None when there is none. A damaged or foreign one is named in the log and the next older one tried.
        """
        for path in self.paths():
            try:
                # NumPy does not close a file that it opened itself and finds damaged.
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                info = json.loads(str(arrays.pop(_INFO)))
                epoch = int(info.pop("epoch"))
            except Exception as error:  # whatever a damaged archive makes of numpy, zipfile and json
                log.warning("not used: %s is damaged (%s)", path, error)
                continue
            if foreign := _differences(arrays, like):
                log.warning("not used: %s is of another training (%s)", path, foreign)
                continue
            log.info("goes on from %s", path)
            return Checkpoint(path, epoch, arrays, info)
        return None


def _differences(arrays: dict[str, np.ndarray], like: dict[str, np.ndarray]) -> str:
    """The first of what does not fit, in words; empty when all does."""
    if names := sorted(arrays.keys() ^ like.keys()):
        return f"{len(names)} arrays are missing or too many: {names[0]}"
    for name, wanted in like.items():
        if arrays[name].shape != wanted.shape or arrays[name].dtype != wanted.dtype:
            found = arrays[name]
            return f"{name} is {found.dtype} {found.shape}, not {wanted.dtype} {wanted.shape}"
    return ""

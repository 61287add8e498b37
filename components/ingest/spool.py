"""Images on their way from a source to shards.

A source can be read only once and in its own order, and how many of a class there are is known at its end.
So the images are first spooled to one file, and only a row of 29 bytes for each stays in memory: ten million images
take about 1 GB while they are sorted. The disk holds the images twice until the shards are written.
"""

import hashlib
import os
import struct
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from components.ingest.source import SPLITS

_UNSPLIT = len(SPLITS)
_LEFT_OUT = _UNSPLIT + 1
_ROW = np.dtype(
    [("key", "<u8"), ("offset", "<u8"), ("size", "<u4"), ("id_size", "<u4"), ("label", "<u4"), ("split", "<u1")]
)
_PACK = struct.Struct("<QQIIIB").pack


class Spool:
    """Takes images in any order and gives them back split and shuffled, the same for any order."""

    def __init__(self, path: Path, seed: int) -> None:
        self._file = path.open("w+b")
        self._rows = bytearray()
        self._seed = seed.to_bytes(8, "little", signed=True)
        self._offset = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, split: str | None, label: int, id: bytes, image: bytes) -> None:
        """Keeps one image. `label` is any number for its class; see `relabel`."""
        self._file.write(id + image)
        # A keyed hash of the id, not a random number: the order does not depend on how the source lists its files.
        key = hashlib.blake2b(id, digest_size=8, key=self._seed).digest()
        code = _UNSPLIT if split is None else SPLITS.index(split)
        self._rows += _PACK(int.from_bytes(key, "little"), self._offset, len(image), len(id), label, code)
        self._offset += len(id) + len(image)

    def relabel(self, labels: list[int]) -> None:
        """Replaces each label by labels[label]; ends the adding, and puts the rows in shuffled order."""
        self._file.flush()
        rows = np.frombuffer(self._rows, _ROW)
        self.rows = rows[np.argsort(rows["key"], kind="stable")]
        self._rows = bytearray()
        self.rows["label"] = np.asarray(labels, "<u4")[self.rows["label"]]

    def read(self, row: np.void) -> tuple[bytes, bytes]:
        """The id and the image of a row."""
        id_size = int(row["id_size"])
        both = os.pread(self._file.fileno(), id_size + int(row["size"]), int(row["offset"]))
        return both[:id_size], both[id_size:]

    def twice(self) -> bytes | None:
        """An id that was added more than once, or None."""
        same = np.flatnonzero(self.rows["key"][1:] == self.rows["key"][:-1])
        for at in same:
            id, _ = self.read(self.rows[at])
            if id == self.read(self.rows[at + 1])[0]:
                return id
        return None

    def split(self, held_out: float, per_class: int | None = None) -> dict[str, np.ndarray]:
        """The rows of each split, in shuffled order.

        A source without splits gives `held_out` of each class to val and as much to test; one with train but
        without val gives `held_out` of each class of train to val. Never less than one image.

        per_class: how many images of each class train and val keep together, in the same proportion, so that a small
        data set has a small val. The first ones, so fewer are part of more.
        """
        codes = self.rows["split"].copy()
        if (codes == _UNSPLIT).any():
            self._hold_out(codes, _UNSPLIT, "val", held_out)
            self._hold_out(codes, _UNSPLIT, "test", held_out / (1 - held_out))
            codes[codes == _UNSPLIT] = SPLITS.index("train")
        elif not (codes == SPLITS.index("val")).any():
            self._hold_out(codes, SPLITS.index("train"), "val", held_out)
        if per_class is not None:
            of_val = int(_part(per_class, held_out))
            self._keep(codes, "val", of_val)
            self._keep(codes, "train", per_class - of_val)
        return {split: self.rows[codes == code] for code, split in enumerate(SPLITS)}

    def _keep(self, codes: np.ndarray, split: str, count: int) -> None:
        """Leaves the first `count` of each class in `split`, and takes the others out of all splits."""
        candidates, _, rank = self._ranked(codes, SPLITS.index(split))
        codes[candidates[rank >= count]] = _LEFT_OUT

    def _hold_out(self, codes: np.ndarray, origin: int, split: str, fraction: float) -> None:
        """Moves the first `fraction` of each class of `origin` to `split`; in shuffled rows the first are any."""
        candidates, labels, rank = self._ranked(codes, origin)
        codes[candidates[rank < _part(np.bincount(labels), fraction)[labels]]] = SPLITS.index(split)

    def _ranked(self, codes: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the rows of one split: where they are, their labels, and which of its class each is, from 0."""
        (candidates,) = np.nonzero(codes == code)
        labels = self.rows["label"][candidates]
        return candidates, labels, pd.Series(labels).groupby(labels).cumcount().to_numpy()


def _part(count: int | np.ndarray, fraction: float) -> np.ndarray:
    """A fraction of so many images: a half is rounded up, and it is never less than one."""
    return np.maximum(np.floor(count * fraction + 0.5), 1)

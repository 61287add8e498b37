"""Spool file that holds the images between their source and the shards.

A source can be read only once and in its own order, and the number of images of a class is known only at its end.
So the images are first spooled to one file, and only a row of 45 bytes for each stays in memory.
The disk holds the images twice until the shards are written.

The split of an image depends on the image alone: on a hash of its pixels. So it stays the same when images are added,
removed, renamed or moved to another class, and is the same for every copy. The splits of earlier spans take precedence.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from components.data.ingest.history import Keys, SplitHistory
from components.data.ingest.source import SPLITS

_TRAIN, _VAL, _TEST = range(len(SPLITS))
_UNSPLIT = len(SPLITS)
_LEFT_OUT = _UNSPLIT + 1
_ROW = np.dtype(
    [
        *((key, "<u8") for key in Keys._fields),
        ("offset", "<u8"),
        ("size", "<u4"),
        ("id_size", "<u4"),
        ("label", "<u4"),
        ("split", "<u1"),
    ]
)
_PACK = struct.Struct("<QQQQIIIB").pack


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

    def add(self, split: str | None, label: int, id: bytes, image: bytes, keys: Keys) -> None:
        """Keep one image.

        Args:
            split: the split that the source gives it, if it does.
            label: any number for its class; see `finish`.
            id: its id.
            image: its bytes.
            keys: how it is recognised.
        """
        self._file.write(id + image)
        code = _UNSPLIT if split is None else SPLITS.index(split)
        self._rows += _PACK(*keys, self._offset, len(image), len(id), label, code)
        self._offset += len(id) + len(image)

    def finish(self, labels: list[int]) -> None:
        """Replaces each label by labels[label]; ends the adding, and puts the rows in shuffled order."""
        self._file.flush()
        rows = np.frombuffer(self._rows, _ROW)
        # By a hash of the id, not by random numbers: the order does not depend on how the source lists its files.
        self.rows = rows[np.argsort(self._keyed(rows["id"]), kind="stable")]
        self._rows = bytearray()
        self.rows["label"] = np.asarray(labels, "<u4")[self.rows["label"]]

    def _keyed(self, keys: np.ndarray) -> np.ndarray:
        """Return uint64 [N]: a hash of each key that depends on the seed."""
        data = keys.tobytes()
        hashes = (hashlib.blake2b(data[at : at + 8], digest_size=8, key=self._seed) for at in range(0, len(data), 8))
        return np.fromiter((int.from_bytes(hash.digest(), "little") for hash in hashes), "<u8", len(keys))

    def read(self, row: np.void) -> tuple[bytes, bytes]:
        """The id and the image of a row."""
        id_size = int(row["id_size"])
        both = os.pread(self._file.fileno(), id_size + int(row["size"]), int(row["offset"]))
        return both[:id_size], both[id_size:]

    def repeated_id(self) -> bytes | None:
        """An id that was added more than once, or None."""
        same = np.flatnonzero(self.rows["id"][1:] == self.rows["id"][:-1])
        for at in same:
            id, _ = self.read(self.rows[at])
            if id == self.read(self.rows[at + 1])[0]:
                return id
        return None

    @property
    def held_out(self) -> tuple[str, ...]:
        """The splits that the source does not have, so that they are held out of its training images."""
        there = self.rows["split"]
        if (there == _UNSPLIT).any():
            return ("val", "test")
        return () if (there == _VAL).any() else ("val",)

    def split(self, fraction: float, history: SplitHistory, per_class: int | None = None) -> dict[str, np.ndarray]:
        """Return the rows of each split, in shuffled order.

        A source without splits gives about `fraction` of its images to val and as many to test; one with train but
        without val gives `fraction` of train to val. An image stays in the split that the history has it in. A class
        that gets no image in a split that is held out gives it the new one whose hash is nearest, if it can spare one.

        Args:
            fraction: below 0.5.
            history: of the earlier spans.
            per_class: how many images of each class train and val keep together, in the same proportion, so that a
                small data set has a small val. The first ones, so fewer are part of more.
        """
        codes = self.rows["split"].copy()
        if self.held_out:
            unsplit = "test" in self.held_out
            (at,) = np.nonzero(codes == (_UNSPLIT if unsplit else _TRAIN))
            codes[at] = self._hold_out(at, (_TRAIN, _VAL, _TEST) if unsplit else (_TRAIN, _VAL), fraction, history)
        if per_class is not None:
            self._keep(codes, per_class, fraction)
        return {split: self.rows[codes == code] for code, split in enumerate(SPLITS)}

    def _hold_out(self, at: np.ndarray, among: Sequence[int], fraction: float, history: SplitHistory) -> np.ndarray:
        """Return the split of each of the rows `at`."""
        lots = self._keyed(self.rows["content"][at])
        limit = np.uint64(fraction * 2**64)
        # How far a lot is from the range of each split: val has the lowest lots, test the next ones, train the rest.
        past = np.where(lots < limit, limit - lots, np.where(lots < 2 * limit, np.uint64(0), lots - 2 * limit + 1))
        distances = {_VAL: lots, _TEST: past, _TRAIN: ~lots}
        codes = np.where(lots < limit, _VAL, np.where((past == 0) & (_TEST in among), _TEST, _TRAIN)).astype(np.uint8)
        earlier = self._earlier(at, among, history)
        codes = np.where(earlier < 0, codes, earlier).astype(np.uint8)
        self._fill(codes, at, earlier < 0, {code: distances[code] for code in among})
        return codes

    def _earlier(self, at: np.ndarray, among: Sequence[int], history: SplitHistory) -> np.ndarray:
        """Return the splits that the history says, -1 where it says none."""
        content = self.rows["content"][at]
        found = history.splits("content", content, among)
        (new,) = np.nonzero(found < 0)
        if len(history) and len(new):
            by_name = {key: history.splits(key, self.rows[key][at[new]], among) for key in ("id", "name")}
            # Copies of one picture stay together, so one whose name is known decides for all.
            groups = pd.DataFrame({"content": content[new], **by_name}).groupby("content").transform("max")
            found[new] = np.where(groups["id"] >= 0, groups["id"], groups["name"])
        return found

    def _fill(self, codes: np.ndarray, at: np.ndarray, new: np.ndarray, distances: dict[int, np.ndarray]) -> None:
        """Moves a new image into each split in which a class has none, and all copies of it."""
        content, labels = self.rows["content"][at], self.rows["label"][at].astype(np.int64)

        def counts(rows: np.ndarray | slice) -> np.ndarray:
            of = labels[rows] * len(SPLITS) + codes[rows]
            return np.bincount(of, minlength=(labels.max() + 1) * len(SPLITS)).reshape(-1, len(SPLITS))

        there = counts(slice(None))
        for label, code in np.argwhere(there == 0):
            if code not in distances:
                continue
            (movable,) = np.nonzero(new & (labels == label))
            movable = movable[np.argsort(distances[code][movable], kind="stable")]
            for picture in pd.unique(content[movable]):
                (copies,) = np.nonzero(content == picture)
                leaving = counts(copies)
                if ((there > leaving) | (leaving == 0)).all():  # no class loses its last image in a split
                    codes[copies] = code
                    there = there - leaving + counts(copies)
                    break

    def _keep(self, codes: np.ndarray, per_class: int, fraction: float) -> None:
        """Leaves the first `per_class` images of each class in train and val, and takes the others out of all splits.

        One split makes up for what the other lacks, so that none is left out needlessly.
        """
        of = {code: self._ranked(codes, code) for code in (_TRAIN, _VAL)}
        classes = int(self.rows["label"].max()) + 1
        there = {code: np.bincount(labels, minlength=classes) for code, (_, labels, _) in of.items()}
        wanted = max(int(per_class * fraction + 0.5), 1)
        train = np.minimum(per_class - np.minimum(wanted, there[_VAL]), there[_TRAIN])
        for code, count in ((_TRAIN, train), (_VAL, per_class - train)):
            candidates, labels, rank = of[code]
            codes[candidates[rank >= count[labels]]] = _LEFT_OUT

    def _ranked(self, codes: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the rows of one split: where they are, their labels, and which of its class each is, from 0."""
        (candidates,) = np.nonzero(codes == code)
        labels = self.rows["label"][candidates]
        return candidates, labels, pd.Series(labels).groupby(labels).cumcount().to_numpy()

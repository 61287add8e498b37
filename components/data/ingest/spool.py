"""Spool files that hold the images between their source and the shards.

A source is read only once and in its own order, and the number of images of a class is known only at its end. So the
images are first written to a spool file, and memory holds only a row of 45 bytes for each image. The disk holds the
images twice until the shards are complete.

The split of an image is decided by a hash of its pixels. So the split does not change if other images are added or
removed, or if the image is renamed or moved to another class, and all copies of an image get the same split. The splits
of earlier spans take precedence.
"""

import bisect
import hashlib
import itertools
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import numpy as np
import pandas as pd

from components.data.ingest.history import Keys, SplitHistory
from components.data.ingest.source import SPLITS

_TRAIN, _VAL, _TEST = range(len(SPLITS))
_UNSPLIT = len(SPLITS)
_LEFT_OUT = _UNSPLIT + 1
ROW = np.dtype(
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
_MAX_OPEN = 256  # files of images that are open at a time


class Images(Protocol):
    """Images in files, to which rows refer."""

    def read(self, row: np.void) -> tuple[bytes, bytes]:
        """Return the id and the image of a row."""


class SpoolFile:
    """Temporary file to which images are added, and from which they are read back.

    Args:
        path: the file, which is created.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._rows = bytearray()
        self._offset = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, split: str | None, label: int, id: bytes, image: bytes, keys: Keys) -> None:
        """Add an image.

        Args:
            split: the image's split in the source, or None if the source has no splits.
            label: a provisional number of the class, which `Spool` replaces.
            id: the image's id.
            image: the encoded image.
            keys: the keys by which the history recognises the image.
        """
        self._file.write(id + image)
        code = _UNSPLIT if split is None else SPLITS.index(split)
        self._rows += _PACK(*keys, self._offset, len(image), len(id), label, code)
        self._offset += len(id) + len(image)

    def finish(self) -> np.ndarray:
        """End the adding of images, and return their rows."""
        self._file.flush()
        rows, self._rows = np.frombuffer(self._rows, ROW), bytearray()
        return rows

    def read(self, row: np.void) -> tuple[bytes, bytes]:
        """Return the id and the image of a row."""
        return _read(self._file, row, 0)


class SpoolFiles:
    """Several spool files, which are read as if they were one file.

    Args:
        paths: the files, in the order in which the offsets of the rows count their bytes.
        sizes: their sizes in bytes.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int]) -> None:
        self._paths = paths
        self._starts = list(itertools.accumulate(sizes, initial=0))[:-1]
        self._open: dict[int, BinaryIO] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def read(self, row: np.void) -> tuple[bytes, bytes]:
        """Return the id and the image of a row."""
        number = bisect.bisect_right(self._starts, int(row["offset"])) - 1
        if number not in self._open:
            if len(self._open) == _MAX_OPEN:
                self.__exit__()
            self._open[number] = self._paths[number].open("rb")
        return _read(self._open[number], row, self._starts[number])


def _read(file: BinaryIO, row: np.void, start: int) -> tuple[bytes, bytes]:
    id_size = int(row["id_size"])
    data = os.pread(file.fileno(), id_size + int(row["size"]), int(row["offset"]) - start)
    return data[:id_size], data[id_size:]


class Spool:
    """Images from which those of each split are taken, in shuffled order.

    Splits and order do not depend on the order in which the images were added.

    Args:
        images: the files of the images.
        rows: structured array [N] of the images, in the order in which they were added.
        labels: for each provisional number of a class, its index.
        seed: seed of the shuffle and of the choice of images that are held out.
    """

    def __init__(self, images: Images, rows: np.ndarray, labels: Sequence[int], seed: int) -> None:
        self.read = images.read
        self._seed = seed.to_bytes(8, "little", signed=True)
        # A hash of the id decides the order instead of random numbers, so that the order in which the source lists its
        # files has no influence.
        self.rows = rows[np.argsort(self._hash(rows["id"]), kind="stable")]
        self.rows["label"] = np.asarray(labels, "<u4")[self.rows["label"]]

    def _hash(self, keys: np.ndarray) -> np.ndarray:
        """Return uint64 [N]: a hash of each key that depends on the seed."""
        data = keys.tobytes()
        hashes = (hashlib.blake2b(data[at : at + 8], digest_size=8, key=self._seed) for at in range(0, len(data), 8))
        return np.fromiter((int.from_bytes(hash.digest(), "little") for hash in hashes), "<u8", len(keys))

    def repeated_id(self) -> bytes | None:
        """Return an id that was added more than once, or None if every id is unique."""
        # Equal ids have equal hashes, so they are next to each other.
        for at in np.flatnonzero(self.rows["id"][1:] == self.rows["id"][:-1]):
            id, _ = self.read(self.rows[at])
            if id == self.read(self.rows[at + 1])[0]:
                return id
        return None

    @property
    def held_out(self) -> tuple[str, ...]:
        """The splits that the source lacks, so that images are held out for them."""
        codes = self.rows["split"]
        if (codes == _UNSPLIT).any():
            return ("val", "test")
        return () if (codes == _VAL).any() else ("val",)

    def split(self, fraction: float, history: SplitHistory, per_class: int | None = None) -> dict[str, np.ndarray]:
        """Assign every image to a split.

        If the source has no splits, about `fraction` of its images are held out for val and as many for test. If it has
        no val, about `fraction` of train is held out for val. An image that the history knows keeps its split. If a
        class then has no image in one of these splits, its new image with the nearest hash moves there, provided that
        no class loses its last image of another split.

        Args:
            fraction: share of the images to hold out, below 0.5.
            history: splits of the images in earlier spans.
            per_class: largest number of images of each class in train and val together, or None for all. Both splits
                shrink in proportion. The first images of each class are kept, so a smaller number selects a subset.

        Returns:
            The rows of each split, in shuffled order.
        """
        codes = self.rows["split"].copy()
        if self.held_out:
            unsplit = "test" in self.held_out
            (at,) = np.nonzero(codes == (_UNSPLIT if unsplit else _TRAIN))
            codes[at] = self._hold_out(at, (_TRAIN, _VAL, _TEST) if unsplit else (_TRAIN, _VAL), fraction, history)
        if per_class is not None:
            self._limit_classes(codes, per_class, fraction)
        return {split: self.rows[codes == code] for code, split in enumerate(SPLITS)}

    def _hold_out(self, at: np.ndarray, allowed: Sequence[int], fraction: float, history: SplitHistory) -> np.ndarray:
        """Return the split of each of the rows `at`."""
        hashes = self._hash(self.rows["content"][at])
        limit = np.uint64(fraction * 2**64)
        # The lowest hashes belong to val, the next ones to test, and the others to train. A distance is the gap between
        # a hash and the range of a split.
        test_distance = np.where(
            hashes < limit, limit - hashes, np.where(hashes < 2 * limit, np.uint64(0), hashes - 2 * limit + 1)
        )
        distances = {_VAL: hashes, _TEST: test_distance, _TRAIN: ~hashes}
        rest = np.where((test_distance == 0) & (_TEST in allowed), _TEST, _TRAIN)
        codes = np.where(hashes < limit, _VAL, rest).astype(np.uint8)
        earlier = self._earlier_splits(at, allowed, history)
        codes = np.where(earlier < 0, codes, earlier).astype(np.uint8)
        self._fill_empty_classes(codes, at, earlier < 0, {code: distances[code] for code in allowed})
        return codes

    def _earlier_splits(self, at: np.ndarray, allowed: Sequence[int], history: SplitHistory) -> np.ndarray:
        """Return the split of each of the rows `at` in the history, or -1 for new images."""
        content = self.rows["content"][at]
        splits = history.splits("content", content, allowed)
        (new,) = np.nonzero(splits < 0)
        if len(history) and len(new):
            by_name = {key: history.splits(key, self.rows[key][at[new]], allowed) for key in ("id", "name")}
            # Copies of a picture stay together, so a copy with a known id or name decides for all copies.
            groups = pd.DataFrame({"content": content[new], **by_name}).groupby("content").transform("max")
            splits[new] = np.where(groups["id"] >= 0, groups["id"], groups["name"])
        return splits

    def _fill_empty_classes(
        self, codes: np.ndarray, at: np.ndarray, new: np.ndarray, distances: dict[int, np.ndarray]
    ) -> None:
        """Move a new image and all its copies into each split in which its class has no image.

        Args:
            codes: uint8 [N], the split of each image, changed in place.
            at: int [N], the row of each image.
            new: bool [N], whether the history does not know the image.
            distances: uint64 [N] for each split, how far the hash of each image is from the split's range.
        """
        content, labels = self.rows["content"][at], self.rows["label"][at].astype(np.int64)

        def counts(rows: np.ndarray | slice) -> np.ndarray:
            cells = labels[rows] * len(SPLITS) + codes[rows]
            return np.bincount(cells, minlength=(labels.max() + 1) * len(SPLITS)).reshape(-1, len(SPLITS))

        total = counts(slice(None))
        for label, code in np.argwhere(total == 0):
            if code not in distances:
                continue
            (movable,) = np.nonzero(new & (labels == label))
            movable = movable[np.argsort(distances[code][movable], kind="stable")]
            for picture in pd.unique(content[movable]):
                (copies,) = np.nonzero(content == picture)
                leaving = counts(copies)
                if ((total > leaving) | (leaving == 0)).all():  # no class loses its last image in a split
                    codes[copies] = code
                    total = total - leaving + counts(copies)
                    break

    def _limit_classes(self, codes: np.ndarray, per_class: int, fraction: float) -> None:
        """Keep the first `per_class` images of each class in train and val together, and leave the others out.

        If one of the splits has too few images of a class, the other keeps more of them.
        """
        ranked = {code: self._rank_within_class(codes, code) for code in (_TRAIN, _VAL)}
        classes = int(self.rows["label"].max()) + 1
        available = {code: np.bincount(labels, minlength=classes) for code, (_, labels, _) in ranked.items()}
        wanted_val = max(int(per_class * fraction + 0.5), 1)
        train = np.minimum(per_class - np.minimum(wanted_val, available[_VAL]), available[_TRAIN])
        for code, count in ((_TRAIN, train), (_VAL, per_class - train)):
            candidates, labels, rank = ranked[code]
            codes[candidates[rank >= count[labels]]] = _LEFT_OUT

    def _rank_within_class(self, codes: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the positions of the rows of one split, their labels, and their numbers within their class, from 0."""
        (candidates,) = np.nonzero(codes == code)
        labels = self.rows["label"][candidates]
        return candidates, labels, pd.Series(labels).groupby(labels).cumcount().to_numpy()

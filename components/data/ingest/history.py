"""History of the splits of all images in a data folder, so that no later span moves an image to another split.

An image is recognised by its pixels, even if its name or class has changed. An image that was encoded again with loss
has new pixels. It is recognised by its id, or by its class and its file name without extension.

Each span stores the history of all spans up to itself in `history.npy`, with 29 bytes for each entry. Keys of 64 bits
suffice: if the keys of two images are equal by chance, the new image only gets the split of the earlier image.
"""

import functools
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from components.data.ingest import manifest as manifests
from components.data.ingest import safe_files, tfrecord
from components.data.ingest.checkers import check_images
from components.data.ingest.folder import span_folder, spans
from components.data.ingest.manifest import HistoryFile, Manifest
from components.data.ingest.source import SPLITS, Progress, Record, RejectedRecord, normalize_name
from components.errors import DataRefused

NAME = manifests.HISTORY

_KEYS = ("content", "id", "name")
_ENTRY = np.dtype([*((key, "<u8") for key in _KEYS), ("split", "u1"), ("span", "<u4")])
_IMAGE_ENDING = re.compile(r"\.(png|jpe?g)$")  # no other endings, because an id need not be a file name
_UNKNOWN = -1


class Keys(NamedTuple):
    """Three keys by which an image is recognised: hashes of its pixels, its id, and its class and file name."""

    content: int
    id: int
    name: int


def keys(class_name: str, id: bytes, digest: str) -> Keys:
    """Return the keys of an image.

    Args:
        class_name: name of its class.
        id: its id.
        digest: hexadecimal digest of its pixels, from `components.data.ingest.images.pixel_digest`.
    """
    file_name = normalize_name(id.decode("utf-8", "surrogateescape").rpartition("/")[2])
    name = f"{_normalize_class_name(class_name)}/{_IMAGE_ENDING.sub('', file_name)}"
    return Keys(_key(bytes.fromhex(digest)), _key(id), _key(name.encode("utf-8", "surrogateescape")))


_normalize_class_name = functools.lru_cache(normalize_name)


def _key(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class SplitHistory:
    """Splits of the images in earlier spans.

    Args:
        entries: structured array [N]: the keys of an image, its split as an index into SPLITS, and the number of the
            newest span that has the image in this split.
        spans: digests of the spans that the entries come from, by span number.
    """

    def __init__(self, entries: np.ndarray | None = None, spans: dict[int, str] | None = None) -> None:
        self._entries = np.empty(0, _ENTRY) if entries is None else entries
        self._spans = spans or {}

    def __len__(self) -> int:
        return len(self._entries)

    def splits(self, key: str, values: np.ndarray, allowed: Collection[int]) -> np.ndarray:
        """Return the splits in which images were before.

        Several pictures may have had the same id or name. Then the newest of these pictures determines the split. If
        spans of an older version put one picture into several splits, test takes precedence over val, and val over
        train.

        Args:
            key: name of the key, a field of Keys.
            values: uint64 [N], this key of each image.
            allowed: indices into SPLITS. Entries with other splits are ignored.

        Returns:
            int8 [N]: index into SPLITS, or -1 for a new image.
        """
        known = self._entries[np.isin(self._entries["split"], list(allowed))]
        if not len(known):
            return np.full(len(values), _UNKNOWN, np.int8)
        pictures, picture = np.unique(known["content"], return_inverse=True)
        best = np.zeros(len(pictures), np.int8)
        np.maximum.at(best, picture, known["split"].astype(np.int8))
        order = np.lexsort((best[picture], known["span"], known[key]))
        at = order[np.searchsorted(known[key][order], values, side="right") - 1]  # the last of equal keys
        return np.where(known[key][at] == values, best[picture[at]], np.int8(_UNKNOWN))

    def with_span(self, number: int, images: dict[str, np.ndarray]) -> Self:
        """Return the history with the images of another span added.

        Args:
            number: number of the span.
            images: structured arrays with the fields of Keys, by split.
        """
        new = np.concatenate([_entries(rows, split, number) for split, rows in images.items()])
        return type(self)(_unique(np.concatenate([self._entries, new])), self._spans)

    def write(self, span: Path) -> HistoryFile:
        """Write the history into a span folder, and return its description for the manifest."""
        np.save(span / NAME, self._entries)
        return HistoryFile(sha256=safe_files.file_digest(span / NAME), spans=self._spans)


def read(data: Path, progress: Progress) -> SplitHistory:
    """Return the history of a data folder.

    If a span has no intact history file, for example because an older version wrote it, its images are decoded.

    Args:
        data: the data folder.
        progress: called with the number of decoded images.

    Raises:
        DataRefused: if a span cannot be read.
    """
    parts = [np.empty(0, _ENTRY)]
    covered: dict[int, str] = {}
    for number in reversed(spans(data)):
        folder = span_folder(data, number)
        try:
            manifest = manifests.read(folder)
            digest = manifest.digest()
            if covered.get(number) == digest:
                continue
            entries = _read_file(folder, manifest.history)
            if manifest.history and entries is not None:
                covered = {**manifest.history.spans, **covered}
            else:
                entries = _from_shards(folder, number, manifest, progress)
        except (DataRefused, OSError, ValueError) as error:
            raise DataRefused(
                f"{error}. A new span keeps every image in the split that it has in {folder.name}: "
                f"restore {folder}, or move it out of {data}"
            ) from error
        parts.append(entries)
        covered[number] = digest
    return SplitHistory(_unique(np.concatenate(parts)), covered)


def _read_file(folder: Path, file: HistoryFile | None) -> np.ndarray | None:
    """Return the entries of a history file, or None if the file is missing or was changed."""
    path = folder / NAME
    if file is None or not os.path.lexists(path):
        return None
    with safe_files.open_file(path) as stored:
        if safe_files.digest(stored) != file.sha256:
            return None
        stored.seek(0)
        entries = np.load(stored, allow_pickle=False)
    return entries if entries.dtype == _ENTRY and entries.ndim == 1 else None


def _from_shards(folder: Path, number: int, manifest: Manifest, progress: Progress) -> np.ndarray:
    parts = []
    total, done = sum(manifest.examples(split) for split in SPLITS), 0
    for split in SPLITS:
        rows: list[tuple[int, int, int]] = []
        with closing(check_images(_records(folder, manifest, split))) as results:
            for result in results:
                done += 1
                progress(f"images of {folder.name} read", done, total)
                if isinstance(result, RejectedRecord):  # without pixels it is recognised by its id and name
                    rows.append(keys(result.class_name or "", result.id, result.id.hex()))
                else:
                    record, image = result
                    rows.append(keys(record.class_name, record.id, image.digest))
        parts.append(_entries(np.array(rows, [(key, "<u8") for key in _KEYS]), split, number))
    return np.concatenate(parts)


def _records(folder: Path, manifest: Manifest, split: str) -> Iterator[Record]:
    for name in manifest.shards:
        if name.startswith(f"{split}/"):
            for example in tfrecord.read_examples(folder / name):
                if not 0 <= example.label < len(manifest.class_names):
                    raise DataRefused(
                        f"{folder / name}: label {example.label} is not from 0 to {len(manifest.class_names) - 1}"
                    )
                yield Record(split, manifest.class_names[example.label], example.id, example.image)


def _entries(rows: np.ndarray, split: str, span: int) -> np.ndarray:
    entries = np.empty(len(rows), _ENTRY)
    for key in _KEYS:
        entries[key] = rows[key]
    entries["split"], entries["span"] = SPLITS.index(split), span
    return entries


def _unique(entries: np.ndarray) -> np.ndarray:
    """Return the sorted entries. If entries differ only by their span, only the newest is kept."""
    entries = entries[np.lexsort([entries[field] for field in reversed(_ENTRY.names or ())])]
    older = np.zeros(len(entries), bool)
    older[:-1] = np.all([entries[field][1:] == entries[field][:-1] for field in (*_KEYS, "split")], axis=0)
    return entries[~older]

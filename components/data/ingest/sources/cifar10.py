"""Source `cifar10`: CIFAR-10 (Krizhevsky, 2009), from its official binary archive or an image folder."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from components.data.ingest.download import download, locate
from components.data.ingest.files import entries, listing
from components.data.ingest.image_folder import open_folder
from components.data.ingest.images import encode_png
from components.data.ingest.source import Listing, Progress, Record, RejectedRecord, Source
from components.errors import DataRefused

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = 3 * 32 * 32  # bytes after the byte of the label: planes of red, green and blue, row by row
_CLASS_NAMES_FILE = "batches.meta.txt"


class Archive(NamedTuple):
    """Official archive of a data set."""

    url: str
    size: int  # bytes
    sha256: str
    images: int


OFFICIAL = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    images=60_000,
)


def open_source(source: str | None, cache: Path, progress: Progress, official: Archive = OFFICIAL) -> Source:
    """Open the official binary archive, or an image folder of CIFAR-10.

    Args:
        source: path or URL of the binary archive, or of an image folder with the ten classes or an archive of one. None
            downloads the official binary archive.
        cache: folder for downloads.
        progress: called with the progress of downloading and hashing.
        official: the official binary archive.

    Raises:
        UsageError: if the path does not exist.
        DataRefused: if a download fails, or a binary archive differs from the official archive.
    """
    if source is None:
        path = download(official.url, cache, size=official.size, sha256=official.sha256, progress=progress)
        description = official.url
    else:
        path, description = locate(source, cache, progress)
        if path.is_dir():
            return open_folder(path, description, progress, CLASS_NAMES)
    sha256 = listing(path, progress).sha256
    if sha256 == official.sha256:
        return Source(description, lambda: Listing(sha256, official.images), lambda: _records(path), _class_names(path))
    if path.name == PurePosixPath(urlsplit(official.url).path).name or _is_binary(path, progress):
        raise DataRefused(
            f"{path}: not the official binary archive: sha256 expected {official.sha256} ({official.size:,} bytes), "
            f"found {sha256} ({path.stat().st_size:,} bytes); fetch it again from {official.url}"
        )
    return open_folder(path, description, progress, CLASS_NAMES)


def _is_binary(archive: Path, progress: Progress) -> bool:
    files = (entry.path for entry in entries(archive, progress) if not entry.path.endswith("/"))
    return next(files, "").endswith((".bin", _CLASS_NAMES_FILE))


def _class_names(archive: Path) -> tuple[str, ...]:
    for path, data in entries(archive):
        if PurePosixPath(path).name == _CLASS_NAMES_FILE and data is not None:
            return tuple(data.decode("ascii").split())
    raise DataRefused(f"{archive}: holds no {_CLASS_NAMES_FILE}")


def _records(archive: Path) -> Iterator[Record | RejectedRecord]:
    names = _class_names(archive)
    for path, data in entries(archive):
        batch = PurePosixPath(path)
        if batch.suffix != ".bin" or data is None:
            continue
        if len(data) % (1 + _PIXELS):
            raise DataRefused(
                f"{archive}: {path}: {len(data):,} bytes are not a whole number of {1 + _PIXELS}-byte records"
            )
        split = "test" if batch.stem == "test_batch" else "train"
        for row, record in enumerate(np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)):
            id = f"{batch.name}:{row}".encode()
            if record[0] >= len(names):
                yield RejectedRecord(id, f"label not from 0 to {len(names) - 1}")
                continue
            pixels = np.ascontiguousarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0))
            yield Record(split, names[record[0]], id, encode_png(Image.fromarray(pixels)))

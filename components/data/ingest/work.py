"""Work on all images of a source: they are hashed, checked and written, here in this process."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from components.data.ingest import tfrecord
from components.data.ingest.intake import Intake, accept, take_in
from components.data.ingest.manifest import Recipe, Shard
from components.data.ingest.source import Progress, Source
from components.data.ingest.spool import Images, Spool, SpoolFile


class Work(Protocol):
    """Steps in which all images of a source are read or written. A context that ends with its temporary files."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def sha256(self) -> str:
        """Return the digest of the source."""

    def take_in(self, earlier_classes: Sequence[str]) -> tuple[Intake, Spool]:
        """Check the images of the source and spool them.

        Args:
            earlier_classes: classes of an earlier span, see `components.data.ingest.intake.accept`.

        Raises:
            DataRefused: if the source cannot be used as a data set.
        """

    def write_shards(self, spool: Spool, shards: Mapping[str, np.ndarray]) -> dict[str, Shard]:
        """Write shards, in folders that exist.

        Args:
            spool: the spooled images.
            shards: the rows of each shard, by its path within the span.
        """


class InProcess:
    """Work in this process, in which child processes decode the images.

    Args:
        source: the source.
        recipe: the parameters of the span.
        folder: the folder in which the span is written.
        progress: called with the progress of each step.
    """

    def __init__(self, source: Source, recipe: Recipe, folder: Path, progress: Progress) -> None:
        self._source, self._recipe, self._folder, self._progress = source, recipe, folder, progress
        self._path = folder / "spool"
        self._file = SpoolFile(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()
        self._path.unlink()

    def sha256(self) -> str:
        """Return the digest of the source."""
        return self._source.sha256

    def take_in(self, earlier_classes: Sequence[str]) -> tuple[Intake, Spool]:
        """Check the images of the source and spool them."""
        tally = take_in(self._source.records(), self._file, self._progress, self._source.total)
        return accept(self._source, tally, self._file, self._file.finish(), self._recipe, earlier_classes)

    def write_shards(self, spool: Spool, shards: Mapping[str, np.ndarray]) -> dict[str, Shard]:
        """Write shards, one after the other."""
        written: dict[str, Shard] = {}
        images, total = 0, sum(map(len, shards.values()))
        for name, rows in shards.items():
            written[name] = write_shard(self._folder / name, self._file, rows)
            images += len(rows)
            self._progress("images written", images, total)
        return written


def write_shard(path: Path, images: Images, rows: np.ndarray) -> Shard:
    """Write a shard.

    Args:
        path: the new file.
        images: the images.
        rows: the rows of the images, in the order of the shard.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for row in rows:
            id, image = images.read(row)
            record = tfrecord.frame(tfrecord.example(image, int(row["label"]), id))
            digest.update(record)
            file.write(record)
    return Shard(examples=len(rows), sha256=digest.hexdigest())

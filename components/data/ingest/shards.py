"""Search for the files of a data set that consists of a few large files, such as Parquet or tar archives."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from components.data.ingest import safe_files
from components.data.ingest.files import digest_line
from components.data.ingest.source import SPLITS, Record, RejectedRecord, split_named
from components.errors import DataRefused

_IMAGES = (".jpg", ".jpeg", ".png")
_MAX_ENTRIES = 1000  # entries of a folder that are read to recognise its kind: a class folder may have a million
_MAX_FOLDERS = 100


class Shard(NamedTuple):
    """File of a data set."""

    path: str  # relative to the folder of the data set
    split: str | None


@dataclass(frozen=True)
class ShardParts:
    """Parts of a data set of a few large files. Each of its files is a part.

    Args:
        root: absolute path of the folder of the data set.
        files: paths of all files that the digest of the source depends on, in their order in the digest.
        shards: those of them that hold records, in order.
        read: function that yields the records of a shard below a folder. It is a partial of a function of a module, so
            that it can be pickled.
    """

    root: Path
    files: tuple[str, ...]
    shards: tuple[Shard, ...]
    read: Callable[[Path, Shard], Iterator[Record | RejectedRecord]]

    def divide(self, scratch: Path) -> Iterator[str]:
        """Yield the paths of the files."""
        yield from self.files

    def digests(self, part: str) -> Iterator[bytes]:
        """Yield the line of `sha256sum` for a file."""
        yield digest_line(safe_files.file_digest(self.root / part), part)

    def records(self, part: str) -> Iterator[Record | RejectedRecord]:
        """Yield the records of a file, if it holds any."""
        for shard in self.shards:
            if shard.path == part:
                yield from self.read(self.root, shard)


def find_shards(root: Path, endings: tuple[str, ...]) -> list[Shard]:
    """Return the files of a data set, which are in a folder or in its subfolders, in path order.

    The split of a file is the name of its folder or a word of its own name, as in `train-00000.tar`.

    Args:
        root: the folder.
        endings: possible endings of the files.

    Returns:
        The files, or an empty list if the folder holds images or has no such files.

    Raises:
        DataRefused: if several subfolders have such files but are not named after splits, the split of a file is
            ambiguous, only some files have a split, or a file is a link or a special file.
    """
    inner = subfolders(root)
    folders = [""] if _holds(root, endings) else [f"{name}/" for name in inner if _holds(root / name, endings)]
    if not folders or any(_holds(root / name, _IMAGES) for name in inner):
        return []
    with_split = [folder for folder in folders if split_named(folder.rstrip("/"))]
    if len(folders) > 1 and len(with_split) < len(folders):
        names = ", ".join(repr(folder) for folder in folders)
        raise DataRefused(f"{root}: {names} each hold {endings[0]} files: name one of these folders as --source")
    shards = [
        Shard(folder + name, _split(root, folder, name))
        for folder in folders
        for name in _files(root / folder, endings)
    ]
    check_splits(root, shards)
    return sorted(shards)


def check_splits(root: Path, shards: list[Shard]) -> None:
    """Raise DataRefused if only some of the files have a split.

    Args:
        root: folder of the data set, for the message.
        shards: the files.
    """
    without = [shard.path for shard in shards if shard.split is None]
    if without and len(without) < len(shards):
        raise DataRefused(
            f"{root}: {without[0]!r} has no split in its name, but other files have: name every file after its split, "
            "such as `train-00000`, or no file"
        )


def _holds(folder: Path, endings: tuple[str, ...]) -> bool:
    """Return whether a folder has files with one of the endings, and no images beside them."""
    with os.scandir(folder) as found:
        names = [entry.name.casefold() for entry in islice(found, _MAX_ENTRIES) if not entry.name.startswith(".")]
    return any(name.endswith(endings) for name in names) and (
        endings == _IMAGES or not any(name.endswith(_IMAGES) for name in names)
    )


def subfolders(root: Path) -> list[str]:
    """Return the sorted names of a folder's first subfolders, without those that are hidden or links."""
    with os.scandir(root) as found:
        entries = [entry for entry in islice(found, _MAX_ENTRIES) if not entry.name.startswith(".")]
    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))[:_MAX_FOLDERS]


def _files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    with os.scandir(folder) as found:
        entries = [
            entry for entry in found if entry.name.casefold().endswith(endings) and not entry.name.startswith(".")
        ]
    for entry in entries:
        if not entry.is_file(follow_symlinks=False):
            kind = safe_files.describe(entry.stat(follow_symlinks=False).st_mode)
            raise DataRefused(f"{entry.path}: {kind}: copy the file itself there")
    return [entry.name for entry in entries]


def _split(root: Path, folder: str, name: str) -> str | None:
    if split := split_named(folder.rstrip("/")):
        return split
    words = re.split(r"[\W\d_]+", name)
    splits = sorted({split for word in words if (split := split_named(word))})
    if len(splits) > 1:
        raise DataRefused(
            f"{root / folder / name}: its name has the words of several splits ({', '.join(splits)}): rename it, "
            f"so that it has at most one of {', '.join(SPLITS)}"
        )
    return splits[0] if splits else None

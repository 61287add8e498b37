"""Files that are on the disk as a whole or not at all, also after a power cut."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the block ends; a reader never finds a part of it.

    The new content lies beside it until then, in `.tmp-<name>`, and is removed if the block raises.
    """
    part = path.with_name(f".tmp-{path.name}")
    try:
        with part.open("wb") as file:
            yield file
        sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names that a folder lists, are on the disk: a rename alone may leave empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything below it are on the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)

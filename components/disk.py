"""What is on the disk for good, so that a power cut after a rename leaves no empty files behind it."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """A file, or the names that a folder lists, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """The same for a folder and everything below it."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)

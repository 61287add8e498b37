"""What is on the disk for good, so that a power cut after a rename leaves no empty files behind it."""

from pathlib import Path

from trainer.disk import sync


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything below it are on the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)

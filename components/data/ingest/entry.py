"""Files and folders of a source, and the rules that apply to them in a folder and in an archive."""

import time
from pathlib import Path
from typing import NamedTuple

from components.data.ingest.source import Progress
from components.errors import DataRefused


class Entry(NamedTuple):
    """A folder (its path ends in "/", no data) or a file. `data` is None for a file of more than MAX_BYTES."""

    path: str
    data: bytes | None


class Heartbeat:
    """Progress reports, twice a second while no file is yielded, so that no long wait is silent."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.reset()

    def reset(self) -> None:
        """Restart the wait: a file was yielded, and its consumer reports it."""
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if time.monotonic() - self._last >= 0.5:
            self._progress(what, done, total)
            self.reset()


def is_hidden(path: str) -> bool:
    """Return whether a file or one of its folders is hidden, or was added to an archive by macOS."""
    return path.startswith(".") or "/." in path or "__MACOSX" in path.split("/")


def path_inside(archive: Path, name: str) -> str | None:
    """Return a member's path without "./", or None for the archive's root.

    Args:
        archive: named in the message.
        name: the member's name.

    Raises:
        DataRefused: if the path leads out of the archive.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise DataRefused(f"{archive}: member {name!r} leads out of the archive: do not use this archive")
    return "/".join(part for part in parts if part not in ("", ".")) or None


def special_member(archive: Path, name: str) -> DataRefused:
    """Return the error for a member that is neither file nor folder.

    Args:
        archive: named in the message.
        name: the member's name.
    """
    return DataRefused(f"{archive}: member {name!r} is a link or special file: pack files and folders only")


def damaged(archive: Path, kind: str, error: Exception) -> DataRefused:
    """Return the error for an archive that cannot be read to its end.

    Args:
        archive: named in the message.
        kind: "tar" or "zip".
        error: the error that was raised.
    """
    why = str(error) or type(error).__name__
    return DataRefused(
        f"{archive}: cut, damaged or no {kind} archive ({why}): "
        "give a whole .tar, .tar.gz, .tar.bz2, .tar.xz or .zip, or a folder"
    )

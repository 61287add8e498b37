"""Files and folders of a source, and the rules that apply to them in folders and archives alike."""

import time
from pathlib import Path
from typing import NamedTuple

from components.data.ingest.source import Progress
from components.errors import DataRefused


class Entry(NamedTuple):
    """File or folder of a source."""

    path: str  # relative, with forward slashes; the path of a folder ends in "/"
    data: bytes | None  # content of a file; None for a folder, and for a file that is larger than MAX_BYTES


class Heartbeat:
    """Progress that is reported twice a second while no file is yielded, so that the user sees that work continues.

    Args:
        progress: the callback that receives the reports.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.reset()

    def reset(self) -> None:
        """Restart the wait, because the consumer of a yielded file reports progress itself."""
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Report the progress if the last report or yielded file was half a second ago.

        Args:
            what: what is counted, for example "bytes read".
            done: the count so far.
            total: the final count, if known.
        """
        if time.monotonic() - self._last >= 0.5:
            self._progress(what, done, total)
            self.reset()


def is_hidden(path: str) -> bool:
    """Return whether a file or one of its folders is hidden, or was added to the archive by macOS."""
    return path.startswith(".") or "/." in path or "__MACOSX" in path.split("/")


def path_inside(archive: Path, name: str) -> str | None:
    """Return the path of a member without "./", or None for the root of the archive.

    Args:
        archive: path of the archive, for the message.
        name: name of the member.

    Raises:
        DataRefused: if the path leads out of the archive.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise DataRefused(f"{archive}: member {name!r} leads out of the archive: do not use this archive")
    return "/".join(part for part in parts if part not in ("", ".")) or None


def special_member(archive: Path, name: str) -> DataRefused:
    """Return the error for a member that is neither a file nor a folder.

    Args:
        archive: path of the archive, for the message.
        name: name of the member.
    """
    return DataRefused(f"{archive}: member {name!r} is a link or special file: pack files and folders only")


def damaged(archive: Path, kind: str, error: Exception) -> DataRefused:
    """Return the error for an archive that cannot be read to its end.

    Args:
        archive: path of the archive, for the message.
        kind: "tar" or "zip".
        error: the error that its reader raised.
    """
    reason = str(error) or type(error).__name__
    return DataRefused(
        f"{archive}: cut, damaged or not a {kind} archive ({reason}): "
        "use an intact .tar, .tar.gz, .tar.bz2, .tar.xz or .zip, or a folder"
    )

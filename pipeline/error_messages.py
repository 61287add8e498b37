"""Explanations of errors of the file system and of the store, with what to do about them."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
# Libraries in C++ report the text of an error without its number. ML Metadata reports the last text for a full disk.
_FULL_WORDS = (*map(os.strerror, sorted(_FULL)), "disk is full", "cannot commit - no transaction is active")


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that it wraps, says that a disk, a quota or a file is full."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL) or any(words in str(cause) for words in _FULL_WORDS)
        for cause in _chain(error)
    )


def disk_full_message(folder: Path, remedy: str = "for example with `vitpipe gc --keep 3`") -> str:
    """Return the message for a full disk: the free space, and how to make room.

    Args:
        folder: a folder on the disk, which need not exist.
        remedy: a way to make room.
    """
    free = shutil.disk_usage(_existing(folder)).free
    return f"no space is left for {folder}: {free:,} bytes are free there. Make room, {remedy}, and start again"


def explain_error(error: BaseException, folder: Path | None = None) -> str | None:
    """Return a message for an error of the file system or the store; None for any other error.

    Args:
        error: the error that was raised.
        folder: the folder in use, for an error that names no file.
    """
    if is_disk_full(error):
        return disk_full_message(folder or Path(getattr(error, "filename", None) or "."))
    if isinstance(error, OSError):
        where = error.filename or folder or Path.cwd()
        if error.errno in _DENIED:
            return (
                f"{where}: {error.strerror}. Give this user permission to read and write there, or name another folder"
            )
        return f"{where}: {error.strerror or error}. Name another path, or move away what is in the way"
    if isinstance(error, sqlite3.Error) or type(error).__module__.startswith("ml_metadata"):
        where = folder or "ML Metadata"
        what = (str(error) or type(error).__name__).splitlines()[0]
        return (
            f"the store of {where} cannot be used: {what}. "
            "Check that this user may write there, that the disk is not full, and that `vitpipe runs list` can read it"
        )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _existing(folder: Path) -> Path:
    return next((path for path in (folder, *folder.absolute().parents) if os.path.exists(path)), Path("/"))  # noqa: PTH110

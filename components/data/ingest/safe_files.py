"""Safe reading of files from untrusted places: only regular files are read, never links, pipes or devices."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

from components.errors import DataRefused

_CHUNK = 2**20


def open_file(path: Path, follow_link: bool = False) -> io.BufferedReader:
    """Open a regular file for reading. Unlike `open`, this never blocks on a pipe.

    Args:
        path: the file.
        follow_link: whether `path` itself may be a link. This is right for a path that the user named.

    Raises:
        DataRefused: if the file is a link or a special file.
        OSError: if the file cannot be opened, or is a folder.
    """
    # The check comes first, because opening a device can have effects. The flags guard against a file that is replaced
    # after the check.
    _check_file(path, path.stat(follow_symlinks=follow_link).st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW))
    file = os.fdopen(descriptor, "rb")
    try:
        _check_file(path, os.fstat(descriptor).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file, which must not be a link.
        max_bytes: largest size that is accepted.

    Raises:
        DataRefused: if the file is a link, a special file or too large.
        OSError: if the file cannot be read.
    """
    with open_file(path) as file:
        data = file.read(max_bytes + 1) if file_size(file) <= max_bytes else None
    if data is None or len(data) > max_bytes:
        raise DataRefused(
            f"{path}: larger than {max_bytes:,} bytes; copy back the file that `vitpipe data prepare` wrote"
        )
    return data


def file_size(file: io.BufferedReader) -> int:
    """Return the size in bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def digest(file: io.BufferedReader, on_read: Callable[[int], None] = lambda _done: None) -> str:
    """Return the sha256 of an open file. Only its current size is read, so that the hashing of a growing file ends.

    Args:
        file: the file, open at its beginning.
        on_read: called with the number of bytes read so far, after every MiB.
    """
    sha256, done, size = hashlib.sha256(), 0, file_size(file)
    while chunk := file.read(min(_CHUNK, size - done)):
        sha256.update(chunk)
        done += len(chunk)
        on_read(done)
    return sha256.hexdigest()


def file_digest(path: Path, follow_link: bool = False) -> str:
    """Return the sha256 of a regular file.

    Args:
        path: the file.
        follow_link: whether `path` itself may be a link.

    Raises:
        DataRefused: if the file is a link or a special file.
        OSError: if the file cannot be read, or is a folder.
    """
    with open_file(path, follow_link) as file:
        return digest(file)


def check_folder(path: Path) -> None:
    """Check that a path is a folder, and not a link to a folder.

    Raises:
        DataRefused: if it is something else.
        OSError: if it is missing.
    """
    mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):
        raise DataRefused(f"{path}: {describe(mode)}: put the folder itself there")


def describe(mode: int) -> str:
    """Describe the mode of a path that is neither a file nor a folder."""
    return f"a link or special file ({stat.filemode(mode)})"


def _check_file(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise DataRefused(f"{path}: {describe(mode)}: put the file itself there")

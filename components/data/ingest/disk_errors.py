"""Descriptions of errors of the disk."""

import errno
import shutil
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Return whether an error says that the disk is full."""
    return error.errno in _NO_SPACE


def disk_problem(error: OSError, out: Path) -> str:
    """Describe an error of the disk, with the space that is needed if the disk is full.

    Args:
        error: the error that was raised while a span was written.
        out: the data folder.
    """
    where = error.filename or out
    if is_full(error):
        free = shutil.disk_usage(out).free
        return f"{where}: {error.strerror}; {free:,} bytes are free: a span needs twice the size of its images"
    return f"{where}: {error.strerror or error}"

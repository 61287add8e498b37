"""Lock of a data folder, which allows one writer at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from components.errors import UsageError


@contextmanager
def folder_lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold a lock on a folder. The kernel releases the lock if the process dies.

    Args:
        folder: the folder, which is created if missing.
        name: name of the lock file in the folder.

    Raises:
        UsageError: if another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another `vitpipe data prepare` is writing to {folder}: wait for it to end") from None
    try:
        yield
    finally:
        lock.release()

"""Files that the workers of a Beam job write, which an engine may do twice for the same element."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    import apache_beam as beam  # takes long to import

MakePipeline = Callable[[], "beam.Pipeline"]


@contextmanager
def appearing(path: Path, scratch: Path) -> Iterator[Path]:
    """Yield the path of a new file, which becomes `path` when the block ends without an exception.

    Args:
        path: the file, which appears complete or not at all.
        scratch: a folder on the same file system for the unfinished file.
    """
    partial = scratch / uuid4().hex
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

"""Registry of the kinds of source that `vitpipe data prepare` supports."""

from collections.abc import Callable
from pathlib import Path

from components.data.ingest.source import Progress, Source
from components.data.ingest.sources import cifar10, images, sample

Open = Callable[[str | None, Path, Progress], Source]
"""Called as open(source path or URL or None, folder for downloads, progress).

Raises UsageError when the argument cannot be used and DataRefused when what it leads to cannot.
"""

SOURCES: dict[str, Open] = {
    "cifar10": cifar10.open_source,
    "images": images.open_source,
    "sample": sample.open_source,
}

"""Registry of the kinds of source that `vitpipe data prepare` supports."""

from collections.abc import Callable
from pathlib import Path

from components.data.ingest.source import Progress, Source
from components.data.ingest.sources import cifar10, images, sample

Open = Callable[[str | None, Path, Progress], Source]
"""Function that opens a source, called as open(path or URL or None, folder for downloads, progress).

It raises UsageError if the argument cannot be used, and DataRefused if the data cannot be used.
"""

SOURCES: dict[str, Open] = {
    "cifar10": cifar10.open_source,
    "images": images.open_source,
    "sample": sample.open_source,
}

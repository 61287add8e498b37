"""Source `images`: any image folder or archive of an image folder. The names of the class folders are the classes."""

from pathlib import Path

from components.data.ingest.download import locate
from components.data.ingest.image_folder import open_folder
from components.data.ingest.source import Progress, Source
from components.errors import UsageError


def open_source(source: str | None, cache: Path, progress: Progress) -> Source:
    """Open an image folder or an archive of an image folder.

    Args:
        source: path or URL.
        cache: folder for downloads.
        progress: called with the progress of downloading and hashing.

    Raises:
        UsageError: if `source` is None or the path does not exist.
        DataRefused: if a download fails, or the source is a damaged archive or contains a link or special file.
    """
    if source is None:
        raise UsageError(
            "`images` needs --source: an image folder, an archive of an image folder, or a URL of such an archive"
        )
    path, description = locate(source, cache, progress)
    return open_folder(path, description, progress)

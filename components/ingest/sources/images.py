"""`images`: any image folder or archive of one; the folders' names are the classes."""

from pathlib import Path

from components.ingest.download import locate
from components.ingest.errors import UsageError
from components.ingest.image_folder import open_folder
from components.ingest.source import Progress, Source


def open_source(source: str | None, cache: Path, progress: Progress) -> Source:
    """See `components.ingest.image_folder.open_folder`."""
    if source is None:
        raise UsageError("`images` needs --source: an image folder, an archive of one, or its URL")
    path, description = locate(source, cache, progress)
    return open_folder(path, description, progress)

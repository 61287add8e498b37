"""`images`: any image folder or archive of one; the folders' names are the classes."""

from pathlib import Path

from components.data.ingest.download import locate
from components.data.ingest.image_folder import open_folder
from components.data.ingest.source import Progress, Source
from components.errors import UsageError


def open_source(source: str | None, cache: Path, progress: Progress) -> Source:
    """Open an image folder or an archive of one, see `components.data.ingest.image_folder.open_folder`."""
    if source is None:
        raise UsageError("`images` needs --source: an image folder, an archive of one, or its URL")
    path, description = locate(source, cache, progress)
    return open_folder(path, description, progress)

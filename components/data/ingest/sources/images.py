"""Source `images`: a data set of images with one class each, in any of the supported formats.

To add a format, add a module with a function like `open_source` of `table` and list the function in `_FORMATS`.
"""

from pathlib import Path

from components.data.ingest import rows
from components.data.ingest.download import locate
from components.data.ingest.image_folder import open_folder
from components.data.ingest.source import Progress, Source
from components.data.ingest.sources import huggingface, table, tfds, webdataset
from components.errors import UsageError

# The first format that recognises a path reads it. A path that none recognises is read as an image folder. Hugging
# Face's Parquet files come before tables, because a Parquet file without images may be a table of paths.
_FORMATS = (huggingface.open_source, table.open_source, tfds.open_source, webdataset.open_source)


def open_source(source: str | None, cache: Path, progress: Progress) -> Source:
    """Open a data set of images. Its format is recognised from its content.

    Args:
        source: path or URL.
        cache: folder for downloads.
        progress: called with the progress of downloading and hashing.

    Raises:
        UsageError: if `source` is None or the path does not exist.
        DataRefused: if a download fails, or the source is damaged, incomplete, or contains a link or special file.
    """
    if source is None:
        raise UsageError(
            "`images` needs --source: an image folder, an archive of an image folder, a table of paths, a data set of "
            "Hugging Face, WebDataset or TensorFlow Datasets, or a URL of an archive"
        )
    path, description = locate(source, cache, progress)
    # A link that the user named is followed, as for archives. A target without the ending would not be recognised.
    if path.is_symlink() and rows.ending(path) in rows.ENDINGS and rows.ending(path.resolve()) == rows.ending(path):
        path = path.resolve()
    for open_format in _FORMATS:
        if (opened := open_format(path, description, progress)) is not None:
            return opened
    return open_folder(path, description, progress)

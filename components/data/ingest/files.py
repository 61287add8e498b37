"""Reader of the files of a source, which is a folder or a tar or zip archive. Archives are never unpacked to disk."""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from components.data.ingest import safe_files
from components.data.ingest.entry import Entry, Heartbeat, is_hidden
from components.data.ingest.images import MAX_BYTES
from components.data.ingest.source import Listing, Progress, no_progress
from components.data.ingest.tar import starts_tar, tar_entries
from components.data.ingest.zip import SIGNATURES, zip_entries
from components.errors import DataRefused

_MAX_DEPTH = 64  # levels of folders; the deepest supported layout has four
_MAX_HASHED = 2**30  # bytes; a larger file in a folder is not an image, and only its size is hashed


def entries(path: Path, progress: Progress = no_progress) -> Iterator[Entry]:
    """Yield the files and folders of a folder or an archive. Hidden files are left out.

    Args:
        path: a folder, or a tar or zip archive. It may be a link, but a folder must not contain links.
        progress: called twice a second while no file is yielded.

    Yields:
        Entries whose paths are relative and have forward slashes.

    Raises:
        DataRefused: if a folder contains a link or special file, an archive is damaged, or a member of it has an
            absolute path, a path with "..", or is a link or special file.
    """
    heartbeat = Heartbeat(progress)
    for entry in _folder(path, heartbeat) if path.is_dir() else _archive(path, heartbeat):
        yield entry
        if not entry.path.endswith("/"):
            heartbeat.reset()


def listing(path: Path, progress: Progress = no_progress) -> Listing:
    """Return the digest of an archive or a folder, and the number of files of a folder.

    The digest of a folder is that of the output of `sha256sum` for its files, in path order. Before an archive is
    hashed, its first member is read, so that a file that is not an archive is rejected quickly.

    Args:
        path: a folder or an archive.
        progress: called after every file or MiB.

    Raises:
        DataRefused: if the beginning of an archive is damaged, or if a folder contains a link or special file.
    """
    if not path.is_dir():
        return Listing(_archive_digest(path, progress), None)
    total, count = hashlib.sha256(), 0

    def alive(_done: int = 0) -> None:
        progress("files hashed", count, None)

    for name in folder_paths(path):
        if not name.endswith("/"):
            digest = image_digest(path / name, alive)
            total.update(digest_line(digest, name))
            count += 1
        alive()
    return Listing(total.hexdigest(), count)


def files_digest(root: Path, names: Iterable[str], progress: Progress) -> str:
    """Return the SHA-256 digest of the output of `sha256sum` for some files. Files of any size are hashed completely.

    Args:
        root: folder of the files.
        names: paths relative to `root`.
        progress: called after every file and MiB.

    Raises:
        DataRefused: if a file is a link or a special file.
    """
    total, done = hashlib.sha256(), 0
    for name in names:
        with safe_files.open_file(root / name) as file:
            before = done

            def alive(read: int, before: int = before) -> None:
                progress("MiB hashed", (before + read) // 2**20, None)

            digest = safe_files.digest(file, alive)
            done += safe_files.file_size(file)
            alive(0, done)
        total.update(digest_line(digest, name))
    return total.hexdigest()


def digest_line(digest: str, name: str) -> bytes:
    """Return the line of `sha256sum` for a file, of which the digests of sources are made.

    Args:
        digest: digest of the file.
        name: path of the file, relative to the source.
    """
    return f"{digest}  {name}\n".encode("utf-8", "surrogateescape")


def read_image(path: Path) -> bytes | None:
    """Return the content of a file, or None if it is larger than MAX_BYTES.

    Raises:
        DataRefused: if the file is a link or a special file.
        OSError: if it cannot be read.
    """
    with safe_files.open_file(path) as file:
        if safe_files.file_size(file) > MAX_BYTES:
            return None
        data = file.read(MAX_BYTES + 1)
        return data if len(data) <= MAX_BYTES else None


def _archive_digest(path: Path, progress: Progress) -> str:
    with safe_files.open_file(path, follow_link=True) as file:
        size = safe_files.file_size(file)
        progress("bytes hashed", 0, size)
        next(_archive(path, Heartbeat(progress)), None)
        return safe_files.digest(file, lambda done: progress("bytes hashed", done, size))


def image_digest(path: Path, alive: Callable[[int], None]) -> str:
    """Return the digest of a file that may be an image, or its size if it is too large to be one.

    Args:
        path: the file.
        alive: called after every MiB.

    Raises:
        DataRefused: if the file is a link or a special file.
        OSError: if it cannot be read.
    """
    with safe_files.open_file(path) as file:
        size = safe_files.file_size(file)
        return safe_files.digest(file, alive) if size <= _MAX_HASHED else f"{size} bytes"


def _folder(root: Path, heartbeat: Heartbeat) -> Iterator[Entry]:
    for number, name in enumerate(folder_paths(root)):
        heartbeat("paths read", number, None)
        yield Entry(name, None if name.endswith("/") else read_image(root / name))


def folder_paths(root: Path, inside: str = "") -> Iterator[str]:
    """Yield the paths in a folder that are not hidden, in sorted order.

    Args:
        root: the folder.
        inside: path of the subfolder whose content is yielded, with "/" at its end.

    Yields:
        Paths relative to `root`. The path of a folder ends in "/" and comes before its content.

    Raises:
        DataRefused: if the folder contains a link or special file, or is nested too deeply.
    """
    if inside.count("/") > _MAX_DEPTH:
        raise DataRefused(f"{root / inside}: folders are nested more than {_MAX_DEPTH} levels deep: move the images up")
    with os.scandir(root / inside) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        path = inside + child.name
        if is_hidden(child.name):
            continue
        if child.is_dir(follow_symlinks=False):
            yield path + "/"
            yield from folder_paths(root, path + "/")
        elif child.is_file(follow_symlinks=False):
            yield path
        else:
            kind = safe_files.describe(child.stat(follow_symlinks=False).st_mode)
            raise DataRefused(f"{root / path}: {kind}: only files and folders are read; copy the file itself there")


def _archive(path: Path, heartbeat: Heartbeat) -> Iterator[Entry]:
    with safe_files.open_file(path, follow_link=True) as file:
        read = zip_entries if _is_zip(file) else tar_entries
        yield from read(path, file, heartbeat)


def _is_zip(file: io.BufferedReader) -> bool:
    """Return whether an archive is a zip archive, which may begin with other bytes, such as a self-extractor."""
    start = file.peek(512)
    if start.startswith(SIGNATURES):
        return True
    if start.startswith((b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh")) or starts_tar(start):
        return False
    is_zip = zipfile.is_zipfile(file)
    file.seek(0)
    return is_zip

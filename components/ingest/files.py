"""The files that a source path holds: a folder's, or a tar archive's, which is read as a stream and never unpacked."""

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Self, cast

from components.ingest.errors import DataRefused
from components.ingest.images import MAX_BYTES
from components.ingest.source import Progress, silent

_READ = 2**20


class Entry(NamedTuple):
    """A folder (its path ends in "/", no data) or a file. `data` is None for a file of more than MAX_BYTES."""

    path: str
    data: bytes | None


class Listing(NamedTuple):
    """sha256 and number of the files of a source; number is None for an archive."""

    sha256: str
    files: int | None


def entries(path: Path) -> Iterator[Entry]:
    """What lies in a folder or an archive; paths are relative to it, with "/". Hidden files are left out.

    Raises DataRefused for a damaged archive, and for any member that could lead out of it: an absolute path, "..",
    a link, a device.
    """
    return _folder(path) if path.is_dir() else _archive(path)


def listing(path: Path, progress: Progress = silent) -> Listing:
    """The digest of an archive, or of a folder: then it is of lines as `sha256sum` prints them, in path order."""
    if not path.is_dir():
        return Listing(_digest(path), None)
    total, count = hashlib.sha256(), 0
    for name in _folder_paths(path):
        if not name.endswith("/"):
            total.update(f"{_digest(path / name)}  {name}\n".encode("utf-8", "surrogateescape"))
            count += 1
            progress("files hashed", count, None)
    return Listing(total.hexdigest(), count)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path or "__MACOSX" in path.split("/")


def _folder(root: Path) -> Iterator[Entry]:
    for name in _folder_paths(root):
        if name.endswith("/"):
            yield Entry(name, None)
        else:
            file = root / name
            yield Entry(name, file.read_bytes() if file.stat().st_size <= MAX_BYTES else None)


def _folder_paths(root: Path, inside: str = "") -> Iterator[str]:
    """Relative paths in sorted order, folders with a final "/" before what they hold."""
    with os.scandir(root / inside) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        path = inside + child.name
        if _hidden(child.name):
            continue
        if child.is_dir(follow_symlinks=False):
            yield path + "/"
            yield from _folder_paths(root, path + "/")
        elif child.is_file(follow_symlinks=False):
            yield path
        else:
            kind = stat.filemode(child.stat(follow_symlinks=False).st_mode)
            raise DataRefused(f"{root / path}: a link or special file ({kind}): only files and folders are read")


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes a damaged header, or none, for the end of the archive; only the end mark is one."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no member and no end mark at byte {tarfile_.offset:,}: {error}") from error


def _archive(path: Path) -> Iterator[Entry]:
    try:
        with (
            _decompressed(path) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader, encoding="utf-8") as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # or tarfile keeps every header
                name = _inside(path, member)
                if name is None or _hidden(name):
                    continue
                if member.isdir():
                    yield Entry(name + "/", None)
                elif member.size > MAX_BYTES:
                    yield Entry(name, None)
                else:
                    yield Entry(name, cast(IO[bytes], tar.extractfile(member)).read())
            while stream.read(_READ):  # the checksum of the compressed stream comes last
                pass
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk; gzip and bz2 raise OSErrors without a number
        raise DataRefused(
            f"{path}: cut, damaged or no tar archive ({error}): give a whole .tar, .tar.gz, .tar.bz2 or .tar.xz"
        ) from error


def _decompressed(path: Path) -> IO[bytes]:
    # Not tarfile's own "r|*": that one does not see that a compressed stream is cut or its checksum wrong.
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if magic == b"\xfd7zXZ\x00":
        return lzma.open(path)
    if magic.startswith(b"BZh"):
        return bz2.open(path)
    return path.open("rb")


def _inside(archive: Path, member: tarfile.TarInfo) -> str | None:
    """The member's path without "./", or None for the archive's root."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts:
        raise DataRefused(f"{archive}: member {member.name!r} leads out of the archive: do not use this archive")
    if not (member.isreg() or member.isdir()):
        raise DataRefused(f"{archive}: member {member.name!r} is a link or special file: pack files and folders only")
    return "/".join(part for part in parts if part not in ("", ".")) or None

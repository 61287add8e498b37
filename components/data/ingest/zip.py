"""Reader of zip archives, which are never unpacked to disk.

Members are read in the order of their positions in the file, and must match the archive's directory.
"""

import errno
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from components.data.ingest.entry import Entry, Heartbeat, damaged, is_hidden, path_inside, special_member
from components.data.ingest.images import MAX_BYTES
from components.data.ingest.safe_files import file_size
from components.errors import DataRefused

SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # first bytes of a member, and of an archive without members

_MAX_DIRECTORY = 256 * 2**20  # bytes; the directory of 1.4 million images has 180 MiB
_LOCAL_HEADER = 30  # smallest size of a member's header, in bytes
_ENCRYPTED = 0x1 | 0x40  # flags of a member that is encrypted
_UTF_8 = 0x800  # flag of a member whose name is encoded in UTF-8

# Errors that zipfile raises on damaged bytes, found by changing bytes of good archives.
_DAMAGED = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    NotImplementedError,
    MemoryError,
)


def zip_entries(path: Path, file: io.BufferedReader, heartbeat: Heartbeat) -> Iterator[Entry]:
    """Yield the members of an archive.

    Args:
        path: path of the archive, for messages.
        file: the archive, open at its beginning.
        heartbeat: called before every member.

    Raises:
        DataRefused: if the archive is damaged or encrypted, its compression is not supported, or a member is a link or
            special file or leads out of the archive.
    """
    size = file_size(file)
    try:
        with _Bounded(file.raw) as bounded, zipfile.ZipFile(bounded) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            _check_overlap(members, archive.start_dir)
            for member in members:
                heartbeat("bytes read", max(0, member.header_offset), size)
                name = _path(path, member)
                if name is None or is_hidden(name):
                    continue
                yield Entry(name + "/", None) if member.is_dir() else Entry(name, _content(path, archive, member))
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # an error of the disk; EINVAL is not, because a seek to an impossible position raises it
        raise damaged(path, "zip", error) from error


class _Bounded(io.BufferedReader):
    """File that refuses to read more than _MAX_DIRECTORY bytes at once, because zipfile reads the directory at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes."""
        if size is not None and size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of {size:,} bytes, at most {_MAX_DIRECTORY:,} are read")
        return super().read(size)


def _check_overlap(members: list[zipfile.ZipInfo], end: int) -> None:
    """Raise BadZipFile if members share bytes, by which an archive can unpack to far more than its size."""
    for member, following in pairwise(members):
        if member.header_offset + _LOCAL_HEADER + member.compress_size > following.header_offset:
            raise zipfile.BadZipFile(f"members {member.filename!r} and {following.filename!r} overlap")
    if members and members[-1].header_offset + _LOCAL_HEADER + members[-1].compress_size > end:
        raise zipfile.BadZipFile(f"member {members[-1].filename!r} overlaps the directory")


def _path(archive: Path, member: zipfile.ZipInfo) -> str | None:
    name = _name(member)
    if "\\" in name or re.match("[A-Za-z]:", name):
        raise DataRefused(
            f"{archive}: member {name!r} has a Windows path: pack it with relative paths and forward slashes"
        )
    inside = path_inside(archive, name)
    mode = member.external_attr >> 16  # the Unix mode; 0 from a system without modes
    expected = stat.S_IFDIR if member.is_dir() else stat.S_IFREG
    if stat.S_IFMT(mode) not in (0, expected):
        raise special_member(archive, name)
    return inside


def _name(member: zipfile.ZipInfo) -> str:
    """Return a member's name.

    macOS encodes names in UTF-8 without setting the flag for it, so that zipfile decodes them as code page 437.
    """
    if not member.flag_bits & _UTF_8:
        try:
            return member.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return member.filename


def _content(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    if member.flag_bits & _ENCRYPTED:
        raise DataRefused(f"{path}: member {member.filename!r} is encrypted: pack it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        known = zipfile.compressor_names.get(member.compress_type, "unknown")  # type: ignore[attr-defined] # undocumented
        raise DataRefused(
            f"{path}: member {member.filename!r} is compressed with method {member.compress_type} ({known}): "
            "pack it with deflate, the usual method, or uncompressed"
        )
    if member.file_size > MAX_BYTES:
        return None
    with archive.open(member) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) != member.file_size:
        raise zipfile.BadZipFile(f"member {member.filename!r} has {len(data):,} bytes, not {member.file_size:,}")
    return data

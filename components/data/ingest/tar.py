"""Reader of tar archives, which are read as a stream and never unpacked to disk.

An archive may be made to harm its reader, so the sizes of headers, of members and of the rest after the end mark are
limited.
"""

import _compression
import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self, cast

from components.data.ingest.entry import Entry, Heartbeat, damaged, is_hidden, path_inside, special_member
from components.data.ingest.images import MAX_BYTES
from components.data.ingest.safe_files import file_size

_READ = 2**20
_MAX_MEMBER = 2**40  # bytes; a larger size is damage, and skipping so many bytes would take hours
_MAX_HEADERS = 2**20  # bytes of all headers of one member: long names, extended attributes and the map of a sparse file
_MAX_GLOBAL_HEADERS = 2**16  # bytes of the global headers, which tarfile copies for each member
# Consecutive digits in a header. The longest file name has as many. The time of a search in tarfile grows with the
# square of this number.
_MAX_DIGITS = 255
_MAX_RATIO = 10_000  # ratio of unpacked to packed bytes; xz reaches 7,000 if all bytes are equal
_MIN_LIMIT = 2**30  # bytes that any archive may unpack to, whatever its ratio
_MAX_AFTER_END = 64 * 2**20  # bytes after the end mark, with which tar fills its last record
_MAX_PADDING = 2**20  # zeros after a gzip stream, which the gzip module reads one by one
_XZ_MEMORY = 512 * 2**20  # bytes; `xz -9` needs 65 MiB

# Errors that tarfile and the decompressors raise on damaged bytes, found by changing bytes of good archives.
_DAMAGED = (
    tarfile.TarError,
    EOFError,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    RecursionError,
    MemoryError,
)


def starts_tar(block: bytes) -> bool:
    """Return whether the first bytes of a file are the header of a tar archive."""
    try:
        tarfile.TarInfo.frombuf(block[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except _DAMAGED:
        return False
    return True


def tar_entries(path: Path, file: io.BufferedReader, heartbeat: Heartbeat) -> Iterator[Entry]:
    """Yield the members of an archive.

    Args:
        path: path of the archive, for messages.
        file: the archive, open at its beginning. It may be compressed with gzip, bzip2 or xz.
        heartbeat: called while the archive is read.

    Raises:
        DataRefused: if the archive is damaged, or a member is a link or special file or leads out of the archive.
    """
    size = file_size(file)

    def alive() -> None:
        heartbeat("bytes read", file.tell(), size)

    try:
        stream, compressed = _decompressed(file, size)
        with stream:
            limit = max(_MAX_RATIO * size, _MIN_LIMIT) if compressed else size
            forward = _Forward(stream, limit, not compressed, alive)
            yield from _members(path, forward)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk: gzip and bz2 raise OSErrors without a number
        raise damaged(path, "tar", error) from error


def _members(path: Path, forward: "_Forward") -> Iterator[Entry]:
    tar = tarfile.TarFile(fileobj=cast(IO[bytes], forward), tarinfo=_StrictHeader, encoding="utf-8")
    while (member := tar.next()) is not None:
        forward.begin_member()
        tar.members.clear()  # type: ignore[attr-defined] # otherwise tarfile keeps every header
        if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > _MAX_GLOBAL_HEADERS:
            raise tarfile.ReadError(f"more than {_MAX_GLOBAL_HEADERS:,} bytes of headers for all members")
        name = path_inside(path, member.name)
        if not (member.isreg() or member.isdir()):
            raise special_member(path, member.name)
        if name is None or is_hidden(name):
            continue
        if member.isdir():
            yield Entry(name + "/", None)
        elif member.size > MAX_BYTES:
            yield Entry(name, None)
        else:
            yield Entry(name, forward.content(member))
    forward.read_to_end()  # the checksum of a compressed stream comes last


class _Forward:
    """Stream that is read only forwards and in limited pieces. A seek backwards or past the limit counts as damage.

    Args:
        stream: the decompressed archive.
        limit: largest number of bytes that the stream may have.
        seekable: whether bytes can be skipped without reading them.
        alive: called between pieces.
    """

    def __init__(self, stream: IO[bytes], limit: int, seekable: bool, alive: Callable[[], None]) -> None:
        self._stream = stream
        self._limit = limit
        self._seekable = seekable
        self._alive = alive
        self._at = 0
        self.begin_member()

    def begin_member(self) -> None:
        """Start a new member, whose headers may again have _MAX_HEADERS bytes."""
        if self._at > self._limit:
            raise tarfile.ReadError(f"unpacks to more than {self._limit:,} bytes")
        self._headers_left = _MAX_HEADERS
        self._alive()

    def tell(self) -> int:
        """Return the position in the stream."""
        return self._at

    def read(self, size: int) -> bytes:
        """Read `size` bytes of a member's headers, or fewer at the end of the stream."""
        if not 0 <= size <= self._headers_left:
            raise tarfile.ReadError(f"more than {_MAX_HEADERS:,} bytes of headers for one member at byte {self._at:,}")
        self._headers_left -= size
        data = self._stream.read(size)
        self._at += len(data)
        if max(map(len, re.findall(rb"\d+", data)), default=0) > _MAX_DIGITS:
            raise tarfile.ReadError(f"more than {_MAX_DIGITS} digits in a row in a header at byte {self._at:,}")
        return data

    def seek(self, position: int) -> None:
        """Skip everything before `position`."""
        if position < self._at:
            raise tarfile.ReadError(f"a member that ends before it begins, at byte {self._at:,}")
        if position > self._limit:
            raise tarfile.ReadError(f"a member that ends at byte {position:,} of at most {self._limit:,}")
        if self._seekable:
            self._stream.seek(position)
            self._at = position
        while self._at < position:
            self._data(min(_READ, position - self._at))
            self._alive()

    def content(self, member: tarfile.TarInfo) -> bytes:
        """Return the content of the member whose headers were read last. Holes of a sparse file become zeros."""
        self.seek(member.offset_data)
        if member.sparse is None:
            return self._data(member.size)
        content = bytearray(member.size)
        for offset, size in _parts(member):
            content[offset : offset + size] = self._data(size)
        return bytes(content)

    def read_to_end(self) -> None:
        """Read the bytes after the end mark."""
        end = self._at
        while data := self._stream.read(_READ):
            self._at += len(data)
            self._alive()
            if self._at - end > _MAX_AFTER_END:
                raise tarfile.ReadError(f"more than {_MAX_AFTER_END:,} bytes after the end mark at byte {end:,}")

    def _data(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        if len(data) < size:
            raise tarfile.ReadError("unexpected end of data")
        return data


class _StrictHeader(tarfile.TarInfo):
    """Header of a member, with checks of its sizes.

    tarfile takes a damaged or missing header for the end of the archive. With this class only the end mark ends an
    archive.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """Read the next header."""
        try:
            member = super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no member and no end mark at byte {tarfile_.offset:,}: {error}") from error
        stored = tarfile_.offset - member.offset_data
        if not 0 <= member.size <= _MAX_MEMBER or not 0 <= stored <= _MAX_MEMBER + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"member {member.name!r} of {member.size:,} bytes")
        if member.sparse is not None:
            _check_sparse(member, stored)
        return member

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Self:
        if self.size < 0:
            raise tarfile.ReadError(f"member {self.name!r} of {self.size:,} bytes")
        return super()._proc_member(tarfile_)  # type: ignore[misc, no-any-return] # tarfile documents that it may be overridden


def _parts(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return the offset and size of every part of a sparse file that is not a hole."""
    return cast(list[tuple[int, int]], member.sparse)


def _check_sparse(member: _StrictHeader, stored: int) -> None:
    """Raise ReadError unless the parts of a sparse file are in order, lie inside it, and match the stored bytes."""
    end = total = 0
    for offset, size in _parts(member):
        if not size:
            continue  # an unused entry or the end mark of the list
        if offset < end or size < 0:
            raise tarfile.ReadError(f"member {member.name!r} has parts of a sparse file that overlap")
        end, total = offset + size, total + size
    if end > member.size or not total <= stored < total + tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"member {member.name!r} has parts of a sparse file that do not match its stored bytes")


def _decompressed(file: io.BufferedReader, size: int) -> tuple[IO[bytes], bool]:
    """Return the stream of a tar archive, and whether it was compressed."""
    # tarfile can decompress in its mode "r|*", but then it does not notice a cut stream or a wrong checksum.
    magic = file.peek(6)
    if magic.startswith(b"\x1f\x8b"):
        _check_zeros(file, size, _MAX_PADDING)
        return cast(IO[bytes], gzip.GzipFile(fileobj=file)), True
    if magic.startswith(b"\xfd7zXZ\x00"):
        # `lzma.open` works the same way, but cannot limit its memory.
        raw = _compression.DecompressReader(
            file, lzma.LZMADecompressor, lzma.LZMAError, format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY
        )
        return io.BufferedReader(raw), True
    if magic.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(file)), True
    # The end is checked before any member is read, because the whole archive is hashed after its first member is read.
    _check_zeros(file, size, _MAX_AFTER_END)
    return file, False


def _check_zeros(file: io.BufferedReader, size: int, bound: int) -> None:
    """Raise EOFError if a file of `size` bytes ends with more zeros than `bound`."""
    if size > bound:
        file.seek(-bound, io.SEEK_END)
        if not file.read(bound).strip(b"\0"):
            raise EOFError(f"more than {bound:,} zeros at its end")
        file.seek(0)

"""Archives written byte by byte, so that each field can have any value."""

import resource
import signal
import struct
import tracemalloc
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

END = bytes(10240)  # the end of a tar archive


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def binary(number: int) -> bytes:
    """Encode a number as GNU tar does if it does not fit into octal digits."""
    return b"\x80" + number.to_bytes(11, "big") if number >= 0 else (2**96 + number).to_bytes(12, "big")


def header(name: bytes = b"a/1.png", size: bytes = octal(3), kind: bytes = b"0", **more: bytes) -> bytes:
    """Return the 512 bytes of a header. `more` has other bytes by their offset, for example `at386=b"..."`."""
    block = bytearray(512)
    fields = {0: name, 124: size, 156: kind, 257: b"ustar\x0000", **{int(at[2:]): data for at, data in more.items()}}
    for at, data in fields.items():
        block[at : at + len(data)] = data
    return with_checksum(block)


def with_checksum(block: bytes) -> bytes:
    """Return a header with a valid checksum."""
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    return bytes(block[:148] + b"%06o\0 " % total + block[156:])


def pax(fields: dict[str, str], kind: bytes = b"x") -> bytes:
    body = b""
    for key, value in fields.items():
        line = f" {key}={value}\n".encode("utf-8", "surrogatepass")
        size = len(line)
        while len(str(size)) + len(line) != size:
            size = len(str(size)) + len(line)
        body += str(size).encode() + line
    return header(b"pax", octal(len(body)), kind) + padded(body)


def sparse_1(numbers: bytes) -> bytes:
    body = padded(numbers) + b"one"
    fields = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000"}
    return pax(fields) + header(size=octal(len(body))) + padded(body)


class ZipMember(NamedTuple):
    """Member of a zip archive. A field that is None is written with its true value."""

    name: bytes
    data: bytes = b""
    method: int = 0  # deflate is 8; anything else is stored
    flags: int = 0
    crc: int | None = None
    packed_size: int | None = None
    size: int | None = None
    offset: int | None = None
    mode: int = 0
    extra: bytes = b""


def zip_archive(members: list[ZipMember], count: int | None = None, comment: bytes = b"") -> bytes:
    """Return a zip archive. `count` is the number of members in its directory; None for the true number."""
    body = directory = b""
    for name, data, method, flags, crc, packed_size, size, offset, mode, extra in members:
        packed = zlib.compress(data, wbits=-15) if method == 8 else data
        crc = zlib.crc32(data) if crc is None else crc
        packed_size = len(packed) if packed_size is None else packed_size
        size = len(data) if size is None else size
        offset = len(body) if offset is None else offset
        same = struct.pack("<5H3I2H", 20, flags, method, 0, 33, crc, packed_size, size, len(name), len(extra))
        directory += b"PK\1\2\x14\3" + same + struct.pack("<3H2I", 0, 0, 0, mode << 16, offset) + name + extra
        body += b"PK\3\4" + same + name + extra + packed
    count = len(members) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), len(comment))
    return body + directory + end + comment


@contextmanager
def within(seconds: int, mib: int):
    """Fail if the block takes longer, or allocates more memory in Python."""

    def stop(*_):
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * 2**20
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def limited_memory(mib: int):
    """Limit the memory of the process to `mib` MiB more than it uses now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

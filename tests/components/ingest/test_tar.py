"""Archives that were made to harm their reader. Every one is refused as damaged, at once and with little memory."""

import gzip
import io
import lzma
import random
import resource
import signal
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.ingest import DataRefused
from components.ingest.files import entries, listing
from components.ingest.images import MAX_BYTES

END = bytes(10240)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def binary(number: int) -> bytes:
    """A number as GNU tar writes one that octal digits cannot hold."""
    return b"\x80" + number.to_bytes(11, "big") if number >= 0 else (2**96 + number).to_bytes(12, "big")


def header(name: bytes = b"a/1.png", size: bytes = octal(3), kind: bytes = b"0", **more: bytes) -> bytes:
    """The 512 bytes of a header; more: other bytes by their place, as at386=b"..."."""
    block = bytearray(512)
    fields = {0: name, 124: size, 156: kind, 257: b"ustar\x0000", **{int(at[2:]): data for at, data in more.items()}}
    for at, data in fields.items():
        block[at : at + len(data)] = data
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * ord(" "))
    return bytes(block)


def pax(fields: dict[str, str], kind: bytes = b"x") -> bytes:
    body = b""
    for key, value in fields.items():
        size = length = len(key) + len(value) + 3
        while len(str(size)) + length != size:
            size = len(str(size)) + length
        body += f"{size} {key}={value}\n".encode()
    return header(b"pax", octal(len(body)), kind) + padded(body)


def sparse_1(numbers: bytes) -> bytes:
    body = padded(numbers) + b"one"
    fields = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000"}
    return pax(fields) + header(size=octal(len(body))) + padded(body)


FILE = header() + padded(b"one")
OLD_SPARSE = {"kind": b"S", "at386": octal(500), "at398": octal(3), "at410": octal(1000), "at483": octal(1000)}
GOOD_SPARSE = {
    "old": header(**OLD_SPARSE) + padded(b"one"),
    "0.0": pax({"GNU.sparse.size": "1000", "GNU.sparse.offset": "500", "GNU.sparse.numbytes": "3"}) + FILE,
    "0.1": pax({"GNU.sparse.size": "1000", "GNU.sparse.map": "500,3,1000,0"}) + FILE,
    "1.0": sparse_1(b"2\n500\n3\n1000\n0\n"),
}
HOSTILE = {
    "pax size of 10^18": pax({"size": str(10**18)}) + FILE,
    "pax size below the largest": pax({"size": str(2**39)}) + FILE,
    "negative pax size": pax({"size": "-512"}) + FILE,
    "pax size that is no number": pax({"size": "nan"}) + FILE,
    "pax size of 5,000 digits": pax({"size": "9" * 5000}) + FILE,
    "huge binary size": header(size=binary(2**80)) + padded(b"one"),
    "negative binary size": header(size=binary(-512)) + padded(b"one"),
    "negative size of a header": header(size=binary(-1024), kind=b"x") + FILE,
    "largest octal size": header(size=b"77777777777\0") + padded(b"one"),
    **{f"{kind} header of 3 GiB": header(size=octal(3 << 29), kind=kind.encode()) + bytes(2000) for kind in "xgXLK"},
    "5,000 headers of one member": pax({"a": "b"}) * 5000 + FILE,
    "headers for all members": b"".join(pax({f"k{i}": "b" * 1000}, b"g") + FILE for i in range(100)),
    "digits": pax({"comment": "1" * 900_000}) + FILE,
    "old sparse file, negative": header(**OLD_SPARSE | {"at386": binary(-5)}) + padded(b"one"),
    "old sparse file, huge": header(**OLD_SPARSE | {"at483": binary(2**70)}) + padded(b"one"),
    "old sparse file, too long a part": header(**OLD_SPARSE | {"at386": octal(999)}) + padded(b"one"),
    "old sparse file, backwards": header(**OLD_SPARSE | {"at410": octal(1), "at422": octal(1)}) + padded(b"one"),
    "old sparse file, endless": header(**OLD_SPARSE | {"at482": b"\1"}) + (bytes(504) + b"\1" + bytes(7)) * 3000,
    "sparse 0.0, no number": pax({"GNU.sparse.size": "x", "GNU.sparse.offset": "500"}) + FILE,
    "sparse 0.0, no parts": pax({"GNU.sparse.size": "1000"}) + FILE,
    "sparse 0.1, no number": pax({"GNU.sparse.size": "1000", "GNU.sparse.map": "500,z"}) + FILE,
    "sparse 0.1, negative": pax({"GNU.sparse.size": "1000", "GNU.sparse.map": "500,-3"}) + FILE,
    "sparse 0.1, overlapping": pax({"GNU.sparse.size": "1000", "GNU.sparse.map": "500,2,501,1"}) + FILE,
    "sparse 0.1, more than is stored": pax({"GNU.sparse.size": "1000", "GNU.sparse.map": "0,1000"}) + FILE,
    "sparse 1.0, no number": sparse_1(b"z\n500\n3\n"),
    "sparse 1.0, negative": sparse_1(b"-1\n500\n3\n"),
    "sparse 1.0, huge": sparse_1(b"999999999\n500\n3\n"),
    "sparse 1.0, no line": sparse_1(bytes(2000)),
}


@contextmanager
def within(seconds: int, mib: int):
    """Fails when the block takes longer, or more memory of Python's."""

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


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive(tmp_path, name, pack):
    (tmp_path / "x").write_bytes(pack(HOSTILE[name] + END))
    with within(seconds=20, mib=60), pytest.raises(DataRefused, match="x: cut, damaged or no tar archive"):
        list(entries(tmp_path / "x"))


@pytest.mark.parametrize("name", GOOD_SPARSE)
def test_sparse_file(tmp_path, name):
    (tmp_path / "x.tar").write_bytes(GOOD_SPARSE[name] + header(b"b/2.png") + padded(b"two") + END)
    assert list(entries(tmp_path / "x.tar")) == [("a/1.png", bytes(500) + b"one" + bytes(497)), ("b/2.png", b"two")]


def test_headers_of_a_real_archive(in_archive, tmp_path):
    """Names of any length, and extended attributes, are no attack."""
    path = tmp_path / "x.tar"
    names = ["a/" + "1" * 250, "a/" + "b" * 200 + "/" + "c" * 200, "a/caf\xe9.png"]
    for format in tarfile.PAX_FORMAT, tarfile.GNU_FORMAT:
        with tarfile.open(path, "w", format=format) as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 3
                if format == tarfile.PAX_FORMAT:
                    member.pax_headers = {"SCHILY.xattr.user.note": "x" * 60_000}
                tar.addfile(member, io.BytesIO(b"one"))
        assert list(entries(path)) == [(name, b"one") for name in names]


@pytest.mark.parametrize("zeros", ["kind", "end"])
def test_zeros_that_unpack_to_gigabytes(tmp_path, zeros):
    path = tmp_path / "x.tar.xz"
    with lzma.open(path, "wb", preset=0) as file:
        file.write(header(kind=b"x", size=octal(2**31)) if zeros == "kind" else FILE + END)
        for _ in range(6):
            file.write(bytes(2**24))
    with within(seconds=20, mib=80), pytest.raises(DataRefused, match=r"1,048,576 bytes of headers|after the end mark"):
        list(entries(path))


def test_member_that_no_such_archive_can_hold(tmp_path):
    with lzma.open(tmp_path / "x.tar.xz", "wb") as file:
        file.write(header(size=b"77777777777\0") + END)
    with pytest.raises(DataRefused, match="a member that ends at byte 8,589,935,103 of at most 1,073,741,824"):
        list(entries(tmp_path / "x.tar.xz"))


def test_dictionary_that_takes_all_memory(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 600 * 2**20}]
    with lzma.open(tmp_path / "x.tar.xz", "wb", filters=filters) as file:
        file.write(FILE + END)
    with pytest.raises(DataRefused, match="Memory usage limit exceeded"):
        list(entries(tmp_path / "x.tar.xz"))


@pytest.mark.parametrize("begin", [b"", FILE + END, gzip.compress(FILE + END), b"PK\x03\x04", b"\x89PNG"])
def test_sparse_archive_is_refused_before_it_is_hashed(tmp_path, begin):
    with (tmp_path / "x").open("wb") as file:
        file.write(begin)
        file.truncate(200 * 2**30)
    with within(seconds=20, mib=200), pytest.raises(DataRefused, match="x: cut, damaged or no"):
        listing(tmp_path / "x")


def test_large_member_is_passed_over_with_progress(tmp_path, monkeypatch):
    monkeypatch.setattr("components.ingest.entry.time.monotonic", iter(range(10**6)).__next__)
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header(size=octal(MAX_BYTES + 1)) + padded(bytes(MAX_BYTES + 1)) + FILE + END)
    calls = []
    assert list(entries(path, lambda *call: calls.append(call))) == [("a/1.png", None), ("a/1.png", b"one")]
    assert len(calls) > 50
    assert {(what, total) for what, _, total in calls} == {("bytes read", path.stat().st_size)}


def packed(kind: str) -> bytes:
    """A good archive, of members of every kind that is read."""
    data = random.Random(0).randbytes(600)
    if kind == "zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, method in ("a/1.png", zipfile.ZIP_STORED), ("b/caf\xe9.png", zipfile.ZIP_DEFLATED), ("c/", 0):
                archive.writestr(zipfile.ZipInfo(name), b"" if name == "c/" else data * 2, method)
        return out.getvalue()
    tar = pax({"path": "a/long"}) + FILE + b"".join(GOOD_SPARSE.values())
    tar += header(b"././@LongLink", octal(200), b"L") + padded(b"b/" + b"c" * 198) + FILE
    tar += header(b"d/", octal(0), b"5") + pax({"comment": "of all"}, b"g") + header(size=octal(600)) + padded(data)
    tar += bytes(1024)
    return {"tar": bytes, "tar.gz": gzip.compress, "tar.xz": lzma.compress}[kind](tar)


def altered(data: bytes, seed: int) -> bytes:
    """The same bytes with up to eight of them changed, a part missing, twice, or zeroed."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at, size = rng.randrange(len(out)), rng.randint(1, 40)
        match rng.randrange(6):
            case 0 | 1:
                out[at] = rng.randrange(256)
            case 2:
                out[at] ^= 1 << rng.randrange(8)
            case 3:
                out[at : at + size] = rng.choice([b"", bytes(size), b"\xff" * size, b"7" * size])
            case 4:
                out[at:at] = out[at : at + size]
            case 5:
                block = at // 512 * 512  # a header: its checksum is made to hold, so that its fields are believed
                if len(out) >= block + 512:
                    out[block + 148 : block + 156] = b" " * 8
                    out[block + 148 : block + 156] = b"%06o\0 " % sum(out[block : block + 512])
    return bytes(out)


def outcomes(kind: str, seeds: range, folder) -> tuple[int, int]:
    """Of altered archives, how many are read and how many refused; anything else is raised."""
    good, read, refused = packed(kind), 0, 0
    for seed in seeds:
        (folder / "x").write_bytes(altered(good, seed))
        with within(seconds=2, mib=200):
            try:
                listing(folder / "x")
                list(entries(folder / "x"))
                read += 1
            except DataRefused:
                refused += 1
    return read, refused


@pytest.fixture
def limited_memory():
    """1 GiB more than what the process has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "zip"])
def test_altered_archives_are_read_or_refused(limited_memory, tmp_path, kind):
    (tmp_path / "x").write_bytes(packed(kind))
    assert len(list(entries(tmp_path / "x"))) == (3 if kind == "zip" else 8)
    read, refused = outcomes(kind, range(150), tmp_path)
    assert read + refused == 150
    assert refused > 30

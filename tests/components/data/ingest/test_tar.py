"""Tests that archives made to harm their reader are quickly rejected as damaged, with little memory."""

import gzip
import io
import lzma
import tarfile

import pytest

from components.data.ingest.files import entries, listing
from components.data.ingest.images import MAX_BYTES
from components.errors import DataRefused
from tests.helpers.archives import END, binary, header, octal, padded, pax, sparse_1, within

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


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive(tmp_path, name, pack):
    (tmp_path / "x").write_bytes(pack(HOSTILE[name] + END))
    with within(seconds=20, mib=60), pytest.raises(DataRefused, match="x: cut, damaged or not a tar archive"):
        list(entries(tmp_path / "x"))


@pytest.mark.parametrize("name", GOOD_SPARSE)
def test_sparse_file(tmp_path, name):
    (tmp_path / "x.tar").write_bytes(GOOD_SPARSE[name] + header(b"b/2.png") + padded(b"two") + END)
    assert list(entries(tmp_path / "x.tar")) == [("a/1.png", bytes(500) + b"one" + bytes(497)), ("b/2.png", b"two")]


def test_headers_of_a_real_archive(in_archive, tmp_path):
    """Long names and extended attributes are legitimate."""
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


def test_member_larger_than_its_archive_can_unpack_to(tmp_path):
    with lzma.open(tmp_path / "x.tar.xz", "wb") as file:
        file.write(header(size=b"77777777777\0") + END)
    with pytest.raises(DataRefused, match="a member that ends at byte 8,589,935,103 of at most 1,073,741,824"):
        list(entries(tmp_path / "x.tar.xz"))


def test_xz_dictionary_that_needs_too_much_memory(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 600 * 2**20}]
    with lzma.open(tmp_path / "x.tar.xz", "wb", filters=filters) as file:
        file.write(FILE + END)
    with pytest.raises(DataRefused, match="Memory usage limit exceeded"):
        list(entries(tmp_path / "x.tar.xz"))


BEGINNINGS = {
    "none": b"",
    "tar": FILE + END,
    "gzip": gzip.compress(FILE + END),
    "zip": b"PK\x03\x04",
    "png": b"\x89PNG",
}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_sparse_archive_is_refused_before_it_is_hashed(tmp_path, begin):
    with (tmp_path / "x").open("wb") as file:
        file.write(begin)
        file.truncate(200 * 2**30)
    with within(seconds=20, mib=200), pytest.raises(DataRefused, match="x: cut, damaged or not"):
        listing(tmp_path / "x")


def test_large_member_is_skipped_with_progress(tmp_path, monkeypatch):
    monkeypatch.setattr("components.data.ingest.entry.time.monotonic", iter(range(10**6)).__next__)
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header(size=octal(MAX_BYTES + 1)) + padded(bytes(MAX_BYTES + 1)) + FILE + END)
    calls = []
    assert list(entries(path, lambda *call: calls.append(call))) == [("a/1.png", None), ("a/1.png", b"one")]
    assert len(calls) > 50
    assert {(what, total) for what, _, total in calls} == {("bytes read", path.stat().st_size)}

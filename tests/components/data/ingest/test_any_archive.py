"""Property tests: any archive is read with bounded time and memory or refused; an intact archive is read completely."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from components.data.ingest.files import entries, listing
from components.data.ingest.images import MAX_BYTES
from components.errors import DataRefused
from tests.helpers.archives import (
    END,
    ZipMember,
    binary,
    header,
    limited_memory,
    octal,
    padded,
    pax,
    sparse_1,
    within,
    zip_archive,
)
from tests.helpers.damage import maybe_damaged, mostly


@pytest.fixture(autouse=True, scope="module")
def in_bounded_memory():
    with limited_memory(mib=1024):
        yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Path to which each example is written."""
    return tmp_path_factory.mktemp("any") / "archive"


# Numbers and names that a hostile archive may have.
numbers = st.one_of(
    st.integers(0, 2000),
    st.sampled_from([-1, -512, 2**31, 2**32 - 1, 2**33 - 1, 2**39, 2**63, 2**64, 10**18]),
    st.integers(-(2**70), 2**70),
)
names = mostly(
    st.sampled_from(["a/1.png", "b/2.png", "a/", "./a", "a//b/", "train/a/1.png"]),
    st.one_of(
        st.sampled_from(["/etc/passwd", "a/../../x", "..", ".", "", "C:/x"]),
        st.text(max_size=12),
        st.text("a/.", min_size=90, max_size=300),
    ),
).map(lambda name: name.encode("utf-8", "surrogatepass"))
contents = st.one_of(st.just(b"one"), st.binary(max_size=600), st.just(bytes(2000)))
sizes = st.one_of(st.integers(0, 2**33 - 1).map(octal), numbers.map(binary), st.binary(max_size=12))
sparse_keys = ["major", "minor", "name", "realsize", "size", "offset", "numbytes", "numblocks", "map"]
pax_keys = st.sampled_from(
    ["path", "linkpath", "size", "mtime", "hdrcharset", "comment", "SCHILY.realsize"]
    + [f"GNU.sparse.{key}" for key in sparse_keys]
)
number_lists = st.lists(numbers, max_size=6).map(lambda values: ",".join(map(str, values)))
pax_values = st.one_of(numbers.map(str), number_lists, st.text(max_size=20), st.sampled_from(["1", "0", "BINARY"]))


@st.composite
def tar_members(draw: st.DrawFn) -> bytes:
    """A header, mostly of a file with its true size, and the content after it."""
    data = draw(contents)
    name = draw(names)[:100]
    size = draw(mostly(octal(len(data)), sizes))
    match draw(mostly("file", st.sampled_from(["any", "pax", "global", "long name", "sparse", "sparse 1.0"]))):
        case "file":
            return header(name, size) + padded(data)
        case "any":
            return header(name, size, draw(st.sampled_from(b"\0001234567gxXLKSDMVA")).to_bytes()) + padded(data)
        case "pax":
            return pax(draw(st.dictionaries(pax_keys, pax_values, max_size=5)))
        case "global":
            return pax(draw(st.dictionaries(pax_keys, pax_values, max_size=3)), b"g")
        case "long name":
            name = draw(names)
            kind = draw(st.sampled_from([b"L", b"K"]))
            return header(b"././@LongLink", octal(len(name)), kind) + padded(name)
        case "sparse":
            places = {f"at{at}": draw(sizes)[:12] for at in draw(st.sets(st.sampled_from([386, 398, 410, 422, 483])))}
            more = draw(st.sampled_from([{}, {}, {"at482": b"\1"}]))
            return header(name, size, b"S", **places, **more) + padded(data)
    parts = draw(st.lists(numbers, max_size=6))
    return sparse_1("".join(f"{number}\n" for number in [len(parts) // 2, *parts]).encode())


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    data = b"".join(draw(st.lists(tar_members(), min_size=1, max_size=4))) + draw(mostly(END, st.just(b"")))
    return draw(maybe_damaged(data))


zip_members = st.builds(
    ZipMember,
    name=names,
    data=contents,
    method=mostly(st.sampled_from([0, 8]), st.sampled_from([9, 12, 14, 93, 99, 65535])),
    flags=mostly(st.sampled_from([0, 0x800]), st.integers(0, 65535)),
    crc=mostly(None, st.integers(0, 2**32 - 1)),
    packed_size=mostly(None, st.integers(0, 700) | st.integers(0, 2**32 - 1)),
    size=mostly(None, st.integers(0, 700) | st.sampled_from([2**26, 2**26 + 1, 2**32 - 1])),
    offset=mostly(None, st.integers(0, 700) | st.integers(0, 2**32 - 1)),
    mode=mostly(st.sampled_from([0, 0o100644]), st.sampled_from([0o040755, 0o120777, 0o010644])),
    extra=mostly(b"", st.binary(max_size=30) | st.binary(max_size=28).map(lambda b: b"\1\0\x18\0" + b)),
)


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    count = draw(mostly(None, st.integers(0, 65535)))
    comment = draw(mostly(b"", st.sampled_from([b"PK\5\6", bytes(40)])))
    return draw(maybe_damaged(zip_archive(draw(st.lists(zip_members, max_size=4)), count, comment)))


@st.composite
def packed(draw: st.DrawFn, archives: st.SearchStrategy[bytes]) -> bytes:
    """A compressed archive, or one that was damaged after it was compressed."""
    compress = draw(st.sampled_from([gzip.compress, bz2.compress, lambda data: lzma.compress(data, preset=0)]))
    return draw(maybe_damaged(compress(draw(archives))))


def read_or_refused(archive: Path, data: bytes) -> None:
    archive.write_bytes(data)
    try:
        with within(seconds=5, mib=200):
            listing(archive)
            for path, content in entries(archive):
                assert not PurePosixPath(path).is_absolute() and ".." not in path.split("/")
                assert not any(part.startswith(".") for part in path.split("/"))
                assert content is None or (len(content) <= MAX_BYTES and not path.endswith("/"))
        event("read")
    except DataRefused as error:
        assert str(error).startswith(f"{archive}: ")
        event("refused")


@given(data=tars())
def test_any_tar(archive, data):
    read_or_refused(archive, data)


@given(data=packed(tars()))
def test_any_compressed_tar(archive, data):
    read_or_refused(archive, data)


@given(data=zips())
def test_any_zip(archive, data):
    read_or_refused(archive, data)


@given(
    data=st.one_of(
        st.binary(max_size=2000),
        st.tuples(
            st.sampled_from([b"PK\3\4", b"PK\5\6", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"]), st.binary(max_size=600)
        ).map(b"".join),
    )
)
def test_any_bytes(archive, data):
    read_or_refused(archive, data)


# Names of folders and files. File systems refuse only "/", NUL, "." and "..", and 255 bytes.
parts = (
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
    .filter(lambda part: part not in (".", ".."))
    .filter(lambda part: len(part.encode()) < 80)
)
paths = st.lists(st.one_of(st.sampled_from(["a", "b", "train", ".x", "__MACOSX"]), parts), min_size=1, max_size=4).map(
    "/".join
)
folders = st.dictionaries(paths, st.binary(max_size=1200), min_size=1, max_size=6).filter(
    lambda files: not any(str(parent) in files for path in files for parent in PurePosixPath(path).parents)
)


def pack_tar(path: Path, files: dict[str, bytes], mode: str, format: int) -> None:
    with tarfile.open(path, mode, format=format) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def pack_zip(path: Path, files: dict[str, bytes], method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)


@given(
    files=folders,
    mode=st.sampled_from(["w", "w:gz", "w:bz2", "w:xz"]),
    format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_an_archive_has_the_entries_of_its_folder(files, mode, format, method):
    with tempfile.TemporaryDirectory() as there:
        root = Path(there, "folder")
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        in_folder = {path: data for path, data in entries(root) if data is not None}
        assert in_folder.items() <= files.items()
        try:
            pack_tar(Path(there, "tar"), files, mode, format)
            assert dict(entries(Path(there, "tar"))) == in_folder
        except ValueError:
            event("a name that ustar cannot hold")
            assert format == tarfile.USTAR_FORMAT
        pack_zip(Path(there, "zip"), files, method)
        if any("\\" in name or re.match("[A-Za-z]:", name) for name in files):
            event("a Windows path")
            with pytest.raises(DataRefused, match="has a Windows path"):
                list(entries(Path(there, "zip")))
        else:
            assert dict(entries(Path(there, "zip"))) == in_folder

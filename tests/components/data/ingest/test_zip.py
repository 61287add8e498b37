import io
import struct
import warnings
import zipfile

import pytest

from components.data.ingest import prepare
from components.data.ingest.files import entries, listing
from components.data.ingest.images import MAX_BYTES
from components.data.ingest.source import no_progress
from components.data.ingest.sources import cifar10
from components.errors import DataRefused

FILES = {"a/1.png": b"one", "a/2.png": b"two" * 1000, "b/caf\xe9.png": b"three"}
DIRECTORY = b"PK\x01\x02"


def zipped(path, members, method=zipfile.ZIP_DEFLATED, mode=0):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # about two members with one name
        for name, data in members.items() if isinstance(members, dict) else members:
            member = zipfile.ZipInfo(name)
            member.compress_type, member.external_attr = method, mode << 16
            archive.writestr(member, data)
    return path


def changed(path, **places):
    """Replace bytes in the first directory entry of an archive: d24=b"..." replaces those from offset 24."""
    data = bytearray(path.read_bytes())
    begin = data.find(DIRECTORY)
    for place, new in places.items():
        at = begin + int(place[1:])
        data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archive(tmp_path, method):
    path = zipped(tmp_path / "x.zip", {"a/": b"", **FILES, "__MACOSX/a/._1.png": b"", "a/.DS_Store": b""}, method)
    assert list(entries(path)) == [("a/", None), *FILES.items()]
    whole = path.read_bytes()
    path.write_bytes(b"#!/bin/sh\n" * 100 + whole)  # a self-extracting archive starts with a program
    assert list(entries(path)) == [("a/", None), *FILES.items()]


def test_zip64_and_a_comment(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.comment = b"c" * 60_000
        with archive.open("a/1.png", "w", force_zip64=True) as member:
            member.write(b"one")
    assert list(entries(tmp_path / "x.zip")) == [("a/1.png", b"one")]


@pytest.mark.parametrize("written", ["caf\xe9".encode(), b"caf\x82"], ids=["macOS", "code page 437"])
def test_utf_8_names_without_their_flag(tmp_path, written):
    path = zipped(tmp_path / "x.zip", {"X" * len(written) + "/1.png": b"one"})
    path.write_bytes(path.read_bytes().replace(b"X" * len(written), written))
    assert list(entries(path)) == [("caf\xe9/1.png", b"one")]


def test_the_span_equals_that_of_the_same_folder(folder, files, tmp_path):
    one = prepare("images", tmp_path / "1", str(folder))
    two = prepare("images", tmp_path / "2", str(zipped(tmp_path / "x.zip", files)))
    assert (one.shards, one.counts) == (two.shards, two.counts)
    assert two.source_sha256 == listing(tmp_path / "x.zip").sha256


def test_cifar10(image, tmp_path):
    files = {f"{split}/{name}/1.png": image() for split in ("train", "test") for name in cifar10.CLASS_NAMES}
    source = cifar10.open_source(str(zipped(tmp_path / "x.zip", files)), tmp_path / "cache", no_progress)
    assert [record.id.decode() for record in source.records()] == list(files)


@pytest.mark.parametrize(
    "name, message",
    [
        ("/etc/passwd", "leads out of the archive"),
        ("a/../../x.png", "leads out of the archive"),
        ("C:/x.png", "has a Windows path"),
        ("a\\1.png", "has a Windows path: pack it with relative paths and forward slashes"),
    ],
)
def test_member_that_leaves_the_archive(tmp_path, name, message):
    path = zipped(tmp_path / "x.zip", {"a/1.png": b"one", name: b"two"})
    with pytest.raises(DataRefused, match=message):
        list(entries(path))


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o040755])
def test_link_or_special_file(tmp_path, mode):
    path = zipped(tmp_path / "x.zip", {"a/1.png": b"b.png"}, mode=mode)
    with pytest.raises(DataRefused, match=r"'a/1\.png' is a link or special file"):
        list(entries(path))


@pytest.mark.parametrize(
    "places, message",
    [
        ({"d8": b"\x01"}, "'a/1.png' is encrypted: pack it without a password"),
        ({"d10": b"\x09"}, r"compressed with method 9 \(deflate64\): pack it with deflate"),
        ({"d10": b"\x0c"}, r"compressed with method 12 \(bzip2\)"),
        ({"d10": b"\xfe"}, r"compressed with method 254 \(unknown\)"),
        ({"d0": b"X"}, "not a zip archive .Bad magic number for central directory"),
        ({"d16": b"XXXX"}, "not a zip archive .Bad CRC-32 for file 'a/1.png'"),
        ({"d24": struct.pack("<I", 2)}, "not a zip archive .Bad CRC-32"),
        ({"d24": struct.pack("<I", 4)}, "not a zip archive .member 'a/1.png' has 3 bytes, not 4"),
        ({"d20": struct.pack("<I", 2**30)}, "members 'a/1.png' and 'a/2.png' overlap"),
        ({"d42": struct.pack("<I", 2**30)}, "overlaps the directory"),
        ({"d6": b"\xff"}, "zip file version"),
    ],
)
def test_damaged_or_unsupported(tmp_path, places, message):
    path = changed(zipped(tmp_path / "x.zip", FILES), **places)
    with pytest.raises(DataRefused, match=r"x\.zip: .*" + message):
        list(entries(path))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_cut(tmp_path, kept):
    path = zipped(tmp_path / "x.zip", FILES)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataRefused, match="cut, damaged or not"):
        list(entries(path))


def test_bomb_of_many_directory_entries_for_one_member(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a/1.png": bytes(100_000)})
    data = path.read_bytes()
    begin, end = data.find(DIRECTORY), data.find(b"PK\x05\x06")
    entry = data[begin:end]
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1000, 1000, len(entry) * 1000, begin, 0)
    path.write_bytes(data[:begin] + entry * 1000 + last)
    with pytest.raises(DataRefused, match=r"members 'a/1\.png' and 'a/1\.png' overlap"):
        list(entries(path))


def test_huge_directory_is_not_read(tmp_path):
    size = 100 * 2**30
    with (tmp_path / "x.zip").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size - 10, 10))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, size, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0))
    with pytest.raises(DataRefused, match="a directory of 107,374,182,390 bytes, at most 268,435,456 are read"):
        listing(tmp_path / "x.zip")


def test_too_large_file_is_not_read(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a/big.png": bytes(MAX_BYTES + 1), "a/1.png": b"one"})
    assert list(entries(path)) == [("a/big.png", None), ("a/1.png", b"one")]


def test_two_members_with_the_same_name(folder, files, tmp_path):
    path = zipped(tmp_path / "x.zip", [*files.items(), *list(files.items())[:1]])
    with pytest.raises(DataRefused, match=r"holds 'train/cat/00\.png' more than once"):
        prepare("images", tmp_path / "out", str(path))


def test_tar_that_ends_with_a_zip_is_a_tar(in_archive, tmp_path):
    inner = zipped(io.BytesIO(), FILES).getvalue()
    path = in_archive(tmp_path / "x.tar", {"a/1.png": b"one", "a/x.zip": inner})
    assert list(entries(path)) == [("a/1.png", b"one"), ("a/x.zip", inner)]

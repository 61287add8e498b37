import hashlib
import os
import tarfile

import pytest

from components.data.ingest.files import entries, listing
from components.data.ingest.images import MAX_BYTES
from components.errors import DataRefused

ENDINGS = ("tar", "tar.gz", "tar.xz", "tar.bz2")
FILES = {"a/1.png": b"one", "a/2.png": b"two" * 1000, "b/caf\xe9.png": b"three"}


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("ending", ENDINGS)
def test_archive(in_archive, tmp_path, ending):
    archive = in_archive(tmp_path / f"x.{ending}", {"a": member("a", tarfile.DIRTYPE), **FILES})
    assert list(entries(archive)) == [("a/", None), *FILES.items()]


def test_archive_packed_from_inside_its_folder(in_archive, tmp_path):
    archive = in_archive(tmp_path / "x.tar", {"./": member("./", tarfile.DIRTYPE), "./a/1.png": b"one"})
    assert list(entries(archive)) == [("a/1.png", b"one")]


def test_folder_and_archive_have_equal_entries(in_folder, in_archive, tmp_path):
    found = [entry for entry in entries(in_folder(tmp_path / "x", FILES)) if entry.data is not None]
    assert found == list(entries(in_archive(tmp_path / "x.tar", FILES)))


def test_hidden_files_are_left_out(in_folder, in_archive, tmp_path):
    files = {".git/x": b"", "a/.DS_Store": b"", "a/._1.png": b"", "__MACOSX/a/1.png": b"", "a/1.png": b"one"}
    assert list(entries(in_folder(tmp_path / "x", files))) == [("a/", None), ("a/1.png", b"one")]
    assert list(entries(in_archive(tmp_path / "x.tar", files))) == [("a/1.png", b"one")]


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd", tarfile.REGTYPE),
        member("a/../../x.png", tarfile.REGTYPE),
        member("a/link.png", tarfile.SYMTYPE, "1.png"),
        member("a/hard.png", tarfile.LNKTYPE, "a/1.png"),
        member("a/device", tarfile.CHRTYPE),
        member("a/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda bad: bad.name,
)
def test_member_that_leaves_the_archive(in_archive, tmp_path, bad):
    archive = in_archive(tmp_path / "x.tar", {"a/1.png": b"one", bad.name: bad})
    with pytest.raises(DataRefused, match=r"x\.tar: member '.*" + bad.name.split("/")[-1]):
        list(entries(archive))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_cut_archive(in_archive, tmp_path, ending, kept):
    archive = in_archive(tmp_path / f"x.{ending}", {f"a/{i}.png": os.urandom(700) for i in range(30)})
    whole = archive.read_bytes()
    end = whole.rstrip(b"\0") if ending == "tar" else whole  # the zeros after the last member are its end mark
    archive.write_bytes(end[: int(len(end) * kept)])
    with pytest.raises(DataRefused, match="cut, damaged or not a tar archive"):
        list(entries(archive))


def test_archive_cut_between_two_members(in_archive, tmp_path):
    archive = in_archive(tmp_path / "x.tar", FILES)
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(DataRefused, match="no member and no end mark at byte 1,024"):
        list(entries(archive))


def test_archive_with_an_altered_header(in_archive, tmp_path):
    archive = in_archive(tmp_path / "x.tar", FILES)
    data = bytearray(archive.read_bytes())
    data[1024] ^= 1  # the name of the second member
    archive.write_bytes(data)
    with pytest.raises(DataRefused, match="no member and no end mark at byte 1,024: bad checksum"):
        list(entries(archive))


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_altered_archive(in_archive, tmp_path, ending):
    archive = in_archive(tmp_path / f"x.{ending}", {"a/1.png": os.urandom(5000)})
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(DataRefused, match="cut, damaged or not a tar archive"):
        list(entries(archive))


def test_file_that_is_not_an_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04" + bytes(2000))
    with pytest.raises(DataRefused, match=r"x\.zip: cut, damaged or not a zip archive"):
        list(entries(tmp_path / "x.zip"))
    (tmp_path / "x.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(2000))
    with pytest.raises(DataRefused, match=r"cut, damaged or not a tar archive .*\.tar\.xz or \.zip, or a folder"):
        list(entries(tmp_path / "x.7z"))


def test_too_large_file_is_not_read(in_archive, tmp_path):
    archive = in_archive(tmp_path / "x.tar.gz", {"a/big.png": bytes(MAX_BYTES + 1), "a/1.png": b"one"})
    assert list(entries(archive)) == [("a/big.png", None), ("a/1.png", b"one")]


def test_links_in_a_folder_are_refused(in_folder, tmp_path):
    root = in_folder(tmp_path / "x", FILES)
    (root / "a" / "3.png").symlink_to("1.png")
    with pytest.raises(DataRefused, match=r"3\.png: a link or special file \(lrwx"):
        list(entries(root))


def test_digest_of_an_archive_is_its_sha256(in_archive, tmp_path):
    archive = in_archive(tmp_path / "x.tar.gz", FILES)
    assert listing(archive) == (hashlib.sha256(archive.read_bytes()).hexdigest(), None)


def test_digest_of_a_folder_depends_on_names_and_content(in_folder, tmp_path):
    first = listing(in_folder(tmp_path / "1", FILES))
    assert first == listing(in_folder(tmp_path / "2", dict(reversed(FILES.items()))))
    assert first.total == 3
    renamed = listing(in_folder(tmp_path / "3", {"a/0.png": b"one", **dict(list(FILES.items())[1:])}))
    changed = listing(in_folder(tmp_path / "4", {**FILES, "a/1.png": b"One"}))
    assert len({first.sha256, renamed.sha256, changed.sha256}) == 3

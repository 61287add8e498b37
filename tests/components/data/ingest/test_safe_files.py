import os
import socket

import pytest

from components.data.ingest.safe_files import check_folder, digest, open_file, read_bytes
from components.errors import DataRefused


@pytest.fixture
def special(tmp_path):
    """Paths of a pipe, a socket, a link to a file, a dangling link and a link to a device."""
    (tmp_path / "file").write_bytes(b"one")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, target in {"link": "file", "dangling": "nothing", "zeros": "/dev/zero"}.items():
            (tmp_path / name).symlink_to(target)
        yield [tmp_path / name for name in ("pipe", "socket", "link", "dangling", "zeros")]


def test_special_files_are_not_opened(special):
    for path in special:
        with pytest.raises(DataRefused, match=rf"{path.name}: a link or special file \([pslc]"):
            open_file(path)


def test_a_link_that_the_user_named_is_followed(special, tmp_path):
    with open_file(tmp_path / "link", follow_link=True) as file:
        assert file.read() == b"one"
    with pytest.raises(DataRefused, match=r"zeros: a link or special file \(c"):
        open_file(tmp_path / "zeros", follow_link=True)


def test_read_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"one")
    assert read_bytes(tmp_path / "file", 3) == b"one"
    with pytest.raises(DataRefused, match="file: larger than 2 bytes"):
        read_bytes(tmp_path / "file", 2)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path, 3)


def test_hashing_a_growing_file_ends(tmp_path):
    (tmp_path / "file").write_bytes(bytes(2**21))

    def grow(_done):
        with (tmp_path / "file").open("ab") as more:
            more.write(bytes(2**21))

    with open_file(tmp_path / "file") as file:
        digest(file, grow)
    assert (tmp_path / "file").stat().st_size == 3 * 2**21


def test_check_folder(tmp_path):
    check_folder(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(DataRefused, match="link: a link or special file"):
        check_folder(tmp_path / "link")

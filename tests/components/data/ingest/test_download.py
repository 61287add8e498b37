"""Tests of downloads from a real HTTP server on this machine."""

import hashlib
import http.server
import re
import threading
from pathlib import Path

import pytest

from components.data.ingest.download import download, locate
from components.data.ingest.locks import folder_lock
from components.data.ingest.source import no_progress
from components.errors import DataRefused, UsageError

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`, and ranges of it if `server.ranges`; breaks off after `server.break_after` bytes."""

    def do_GET(self) -> None:
        server = self.server
        requested = self.headers.get("Range")
        server.requests.append(requested)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = 0
        if requested and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1])
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        end = len(server.content) if server.break_after is None else start + server.break_after
        self.wfile.write(server.content[start:end])
        self.close_connection = True

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.ranges, server.break_after, server.requests = CONTENT, True, None, []
        server.url = f"http://127.0.0.1:{server.server_port}/some/data.tar.gz"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(server, folder: Path) -> Path:
    return download(server.url, folder, size=len(CONTENT), sha256=SHA256)


def test_download(server, tmp_path):
    told = []
    path = download(server.url, tmp_path, size=len(CONTENT), sha256=SHA256, progress=lambda *args: told.append(args))
    assert path == tmp_path / "data.tar.gz"
    assert path.read_bytes() == CONTENT
    assert told[-1] == ("MB downloaded", 1, 1)
    assert not list(tmp_path.glob("*.part"))


def test_complete_file_is_not_downloaded_again(server, tmp_path):
    get(server, tmp_path)
    get(server, tmp_path)
    assert server.requests == [None]


def test_altered_copy_is_downloaded_again(server, tmp_path):
    get(server, tmp_path).write_bytes(b"altered")
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_stopped_download_resumes(server, tmp_path):
    server.break_after = 700_000
    with pytest.raises(DataRefused, match=r"the download stopped after 700,000 bytes .*: run the command again"):
        get(server, tmp_path)
    server.break_after = None
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=700000-"]


def test_server_without_ranges_starts_over(server, tmp_path):
    (tmp_path / "data.tar.gz.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_complete_part_file(server, tmp_path):
    """A process that is killed between the last byte and the rename leaves such a file."""
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"x" + CONTENT[1:], CONTENT + b"x"], ids=["altered", "longer"])
def test_other_content(server, tmp_path, content):
    server.content = content
    with pytest.raises(DataRefused, match=f"sha256 expected {SHA256} .*, found {hashlib.sha256(content).hexdigest()}"):
        get(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.tar.gz.lock"]


def test_shorter_content(server, tmp_path):
    server.content = CONTENT[:1000]
    with pytest.raises(DataRefused, match="the download stopped after 1,000 bytes"):
        get(server, tmp_path)


def test_altered_part_is_deleted(server, tmp_path):
    (tmp_path / "data.tar.gz.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataRefused, match="sha256 expected"):
        get(server, tmp_path)
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_download_without_a_digest_is_not_resumed(server, tmp_path):
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT[:1000])
    assert download(server.url, tmp_path).read_bytes() == CONTENT
    server.content = b"newer"
    assert download(server.url, tmp_path).read_bytes() == b"newer"
    assert server.requests == [None, None]


def test_missing_on_the_server(server, tmp_path):
    with pytest.raises(DataRefused, match="the server answered 404 Not Found"):
        download(server.url + "-missing", tmp_path)


def test_no_server(server, tmp_path):
    server.server_close()
    with pytest.raises(DataRefused, match=r"the download stopped after 0 bytes \(ConnectionError\)"):
        download("http://127.0.0.1:1/x.tar", tmp_path)


def test_two_downloads_at_once(server, tmp_path):
    with folder_lock(tmp_path, "data.tar.gz.lock"), pytest.raises(UsageError, match="wait for it to end"):
        get(server, tmp_path)


def test_credentials_are_not_printed(server, tmp_path):
    url = server.url.replace("http://", "http://user:secret@") + "?token=secret"
    path, description = locate(url, tmp_path, no_progress)
    assert (path.name, description) == ("data.tar.gz", server.url)
    with pytest.raises(DataRefused) as raised:
        locate(url.replace("data", "missing"), tmp_path, no_progress)
    assert "secret" not in str(raised.value)

"""Error messages for a store that cannot be read."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ml_metadata import MetadataStore

from components.errors import StoreError
from pipeline.metadata import address as address_module
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from tests.helpers.kill import kill_a_writer

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import metadata


def refusal(address):
    with pytest.raises(StoreError) as refused, reader(address) as store:
        store.runs()
        store.artifacts()
    assert str(address) in str(refused.value)
    return str(refused.value)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a store of three runs."""
    file = tmp_path_factory.mktemp("store") / "metadata.db"
    metadata.generate(Address(file=file).connection_config(), 3)
    return file.read_bytes()


@pytest.fixture
def store(small, tmp_path):
    address = Address(file=tmp_path / "metadata.db")
    address.file.write_bytes(small)
    return address


def test_a_missing_file_is_not_created(tmp_path):
    address = Address(file=tmp_path / "metadata.db")
    assert "no store at" in refusal(address) and "vitpipe run" in refusal(address)
    assert not address.file.exists()


@pytest.mark.parametrize("content", [b"name,value\n" * 1000, b"SQLite format 3\0" + b"\xff" * 9000])
def test_another_kind_of_file_is_rejected(content, tmp_path):
    file = tmp_path / "metadata.db"
    file.write_bytes(content)
    assert "damaged or not a SQLite file" in refusal(Address(file=file))
    assert file.read_bytes() == content


def test_a_database_without_tables_of_ml_metadata_is_rejected(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other, other:
        other.execute("CREATE TABLE Artifact (id INT)")
    assert "is not a store of ML Metadata: it has no table MLMDEnv" in refusal(Address(file=tmp_path / "other.db"))


def test_a_damaged_file_is_reported(store, small):
    half = len(small) // 2
    store.file.write_bytes(small[:half] + bytes(255 - byte for byte in small[half:]))
    assert "is damaged" in refusal(store) and "restore a backup of it" in refusal(store)


def test_a_truncated_file_is_reported_as_damaged(store, small):
    store.file.write_bytes(small[: len(small) // 2])
    assert "is damaged" in refusal(store)


@pytest.mark.parametrize(
    "put",
    [Path.mkdir, os.mkfifo, lambda file: file.symlink_to(file.name), lambda file: file.symlink_to("gone")],
    ids=["folder", "pipe", "link to itself", "link to nothing"],
)
def test_something_that_is_not_a_file_is_not_reported_as_a_missing_store(put, tmp_path):
    file = tmp_path / "metadata.db"
    put(file)
    assert "is not a SQLite file, but" in refusal(Address(file=file))


def test_a_lock_is_reported_after_a_wait(store, monkeypatch):
    monkeypatch.setattr(address_module, "_TIMEOUT", 0.2)
    with contextlib.closing(sqlite3.connect(store.file)) as writer, writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert "has been locked by another process for more than 0.2 s" in refusal(store)
    with reader(store) as free:
        assert len(free.runs()) == 3


# Reads a store as a user who may not write there.
READ = """
import os, sys
from pathlib import Path
from pipeline.metadata.address import Address, StoreError
from pipeline.metadata.reader import reader
os.setgid(65534)
os.setuid(65534)
try:
    with reader(Address(file=Path(sys.argv[1]))) as store:
        print(len(store.runs()))
except StoreError as error:
    sys.exit(str(error))
"""


def test_a_change_whose_writer_was_killed_is_undone_and_reported(store, capsys):
    with reader(store) as before:
        runs, artifacts = before.runs(), before.artifacts()
    kill_a_writer(store.file)
    journal = Path(f"{store.file}-journal")
    assert journal.stat().st_size > 0
    with reader(store) as after:
        assert (after.runs(), after.artifacts()) == (runs, artifacts)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            after._connection._raw.execute("DELETE FROM Artifact")
    assert not journal.exists()
    assert capsys.readouterr().err.count("was killed during a change; the change was undone") == 1
    with reader(store) as again:
        assert again.runs() == runs
    assert capsys.readouterr().err == ""


def test_a_change_in_a_write_ahead_log_is_undone(store):
    with reader(store) as before:
        runs = before.runs()
    kill_a_writer(store.file, "WAL")
    Path(f"{store.file}-shm").unlink()
    with reader(store) as after:
        assert after.runs() == runs


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not write")
@pytest.mark.parametrize("writable", ["file", "folder"])
def test_a_user_without_write_permission_learns_who_can_undo_a_change(writable, small):
    # The store lies outside pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        store = Address(file=Path(folder) / "metadata.db")
        store.file.write_bytes(small)
        kill_a_writer(store.file)
        Path(folder).chmod(0o777 if writable == "folder" else 0o755)
        for file in Path(folder).iterdir():
            file.chmod(0o666 if writable == "file" else 0o644)
        before = {file.name for file in Path(folder).iterdir()}
        told = subprocess.run([sys.executable, "-c", READ, str(store.file)], capture_output=True, text=True)
        assert told.returncode == 1 and {file.name for file in Path(folder).iterdir()} == before
        assert f"recorded in {store.file}-journal" in told.stderr and "vitpipe runs list --runs" in told.stderr
        assert "backup" not in told.stderr and "Traceback" not in told.stderr
        with reader(store) as healed:  # this user has write permission
            assert len(healed.runs()) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read")
def test_an_unreadable_file_is_not_reported_as_damaged(small):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "metadata.db"
        file.write_bytes(small)
        file.chmod(0o600)
        told = subprocess.run([sys.executable, "-c", READ, str(file)], capture_output=True, text=True)
        assert told.returncode == 1 and "cannot be read by this user" in told.stderr


def test_the_log_of_a_damaged_store_must_be_moved_away(store, small):
    store.file.write_bytes(b"name,value\n" * 1000)
    Path(f"{store.file}-wal").write_bytes(b"left over")
    assert f"move {store.file}-wal away" in refusal(store)


def test_a_reader_sees_one_moment_and_does_not_block_a_writer(store):
    with reader(store) as before:
        assert len(before.run_names()) == 3
        started = time.monotonic()
        with contextlib.closing(sqlite3.connect(store.file, timeout=5)) as writer, writer:
            writer.execute("UPDATE Context SET last_update_time_since_epoch = 1")
            writer.rollback()
        assert time.monotonic() - started < 1
        assert len(before.runs()) == 3


@pytest.mark.parametrize("version", [9, 11])
def test_tables_of_another_version_are_rejected(version, store):
    with contextlib.closing(sqlite3.connect(store.file)) as writer, writer:
        writer.execute("UPDATE MLMDEnv SET schema_version = ?", [version])
    assert f"schema version {version}, but this version reads 10" in refusal(store)


def test_an_empty_store_of_ml_metadata_can_be_read(tmp_path):
    address = Address(file=tmp_path / "new" / "metadata.db")
    MetadataStore(address.connection_config())
    with reader(address) as empty:
        assert (empty.runs(), empty.artifacts(), empty.run_names(), empty.artifact_types()) == ([], [], [], {})


@pytest.mark.parametrize(
    "text",
    ["mysql://u:s3cret@h/d", "mysql://u:s3cret@h:port/d", "mysql://u:s3cret@h:99999/d", "http://u:s3cret@h/d"],
)
def test_the_error_of_a_wrong_address_shows_no_password(text):
    with pytest.raises(StoreError) as refused:
        Address.parse(text)
    assert "s3cret" not in str(refused.value)


def test_an_address_is_read_with_its_escapes():
    address = Address.parse("mysql://us%40er@db.example/ml%20md", password="p")
    assert (address.user, address.host, address.port, address.database) == ("us@er", "db.example", 3306, "ml md")

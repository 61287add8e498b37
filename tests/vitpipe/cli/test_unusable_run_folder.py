"""Run folders that `vitpipe run` and `vitpipe gc` cannot use: one message, an exit code, and nothing is changed."""

import shutil
import subprocess

import pytest

from tests.helpers.command import command
from tests.helpers.stores import make_store

RUN = ("run", "-c", "sample", "--set", "runs=runs")
GC = ("gc", "--keep", "1", "--runs", "runs")
COMMANDS = (RUN, GC, (*GC, "--dry-run"))


@pytest.fixture
def folder(tmp_path, sample_data):
    """Return a folder with data and the run folder of a pipeline, which has a store and an artifact."""
    (tmp_path / "data").symlink_to(sample_data / "data")
    make_store(tmp_path / "runs" / "sample" / "metadata.db", runs=1)
    artifact = tmp_path / "runs" / "sample" / "root" / "Trainer" / "model" / "7" / "saved_model.pb"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"weights")
    return tmp_path


def contents(folder):
    """Return the content of every file, except the empty lock file that a command may create."""
    files = [path for path in (folder / "runs", *folder.glob("runs/**/*")) if path.name != ".lock"]
    return {path: path.read_bytes() if path.is_file() else None for path in files}


def assert_error(done, code, path, *words):
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in (str(path), *words):
        assert word in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_in_place_of_the_run_folders(folder, in_this_process, arguments, below):
    (folder / "file").write_text("kept")
    arguments = [word.replace("runs=runs", f"runs=file{below}") for word in arguments]
    arguments = [f"file{below}" if word == "runs" else word for word in arguments]
    done = in_this_process(folder, *arguments)
    assert_error(done, 2, f"file{below}", "ame ")  # "Name another path" or "name the folder"
    assert (folder / "file").read_text() == "kept"


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_folder_in_place_of_the_lock_file(folder, in_this_process, arguments):
    """Not even root can open such a lock for writing."""
    (folder / "runs" / "sample" / ".lock").mkdir()
    before = contents(folder)
    assert_error(in_this_process(folder, *arguments), 2, folder / "runs" / "sample" / ".lock", "move away")
    assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_read_only_file_system(folder, arguments):
    """The file system is a real mount in its own namespace, where not even root can write."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("unshare cannot mount here")
    before = contents(folder)
    line, options = command(folder, *arguments)
    mount = 'mount --bind runs runs && mount -o remount,bind,ro runs && exec "$@"'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount, "sh", *line], capture_output=True, **options)
    assert_error(done, 2, folder / "runs" / "sample" / ".lock", "Read-only file system", "permission")
    assert contents(folder) == before


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("damage", ["junk", "cut", "folder"])
def test_a_damaged_store(folder, in_this_process, arguments, damage):
    file = folder / "runs" / "sample" / "metadata.db"
    whole = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"junk": b"no database " * 999, "cut": whole[: len(whole) // 2]}[damage])
    before = contents(folder)
    assert_error(in_this_process(folder, *arguments), 1, file, "a backup of ")
    assert contents(folder) == before

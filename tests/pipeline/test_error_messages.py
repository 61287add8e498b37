"""Files that cannot be read or written: one message names the path, the reason and what to do."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.error_messages import disk_full_message, explain_error, is_disk_full

ROOT = Path(__file__).resolve().parents[2]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def vitpipe(folder, *arguments, user=()):
    line = [*user, sys.executable, "-m", "vitpipe", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(ROOT)})


def said(done, code, *words):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_full_disk_is_recognised_by_number_and_by_text(tmp_path):
    full_disk = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "part"))
    wrapped = RuntimeError("while running 'Write'")
    wrapped.__cause__ = full_disk
    for error in full_disk, wrapped, RuntimeError("OSError: [Errno 28] No space left on device [while running x]"):
        assert is_disk_full(error)
        assert "bytes are free there" in explain_error(error, tmp_path) and "vitpipe gc" in explain_error(
            error, tmp_path
        )
    assert not is_disk_full(ValueError("no space between the words"))
    assert str(tmp_path / "not" / "yet") in disk_full_message(tmp_path / "not" / "yet")


def test_other_errors_are_not_explained():
    assert explain_error(ValueError("a mistake of ours")) is None
    assert explain_error(KeyError("a mistake of ours")) is None


def test_a_path_that_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as raised:
        (tmp_path / "file" / "below").mkdir()
    assert explain_error(raised.value) == (
        f"{tmp_path / 'file' / 'below'}: Not a directory. Name another path, or move away what is in the way"
    )


def test_a_file_in_place_of_the_run_folders(tmp_path):
    (tmp_path / "file").write_text("")
    said(vitpipe(tmp_path, "runs", "list", "--runs", "file"), 2, "file cannot be listed", "Not a directory", "--runs")


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv")
def test_a_folder_of_another_user(tmp_path):
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    (tmp_path / "runs" / "sample").mkdir(parents=True)
    (tmp_path / "runs" / "sample").chmod(0o700)
    done = vitpipe(tmp_path, "runs", "list", user=NOBODY)
    if "No module named" in done.stderr or "Permission denied" in done.stderr.splitlines()[0]:
        pytest.skip("another user cannot read this checkout")
    said(done, 1, "runs/sample cannot be entered")

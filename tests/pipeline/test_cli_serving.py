"""What is broken around a pushed model ends as one line that names it, and no trace."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from components.serving_folder import ModelId, ModelRecord, push

ROOT = Path(__file__).parents[2]


def vitpipe(folder, *arguments):
    line = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(ROOT)})


@pytest.fixture
def folder(tmp_path):
    """Two pushed versions of what TensorFlow cannot load."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"no graph")
    for version in (1, 2):
        record = ModelRecord(
            version=version, pushed_at=datetime(2026, 1, 1, tzinfo=UTC), run_id="r", span=1, data_digest="d",
            model=ModelId(uri=f"/{version}", created_ms=1), code_version="c", settings_digest="s",
            metrics={"accuracy": 0.9}, signatures=["serving_bytes"], classes=["a", "b"],
        )  # fmt: skip
        push(tmp_path / "model", tmp_path / "runs" / "x" / "serving", record)
    Image.new("RGB", (8, 8)).save(tmp_path / "some.png")
    return tmp_path


def said(done, code, *words):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_a_model_that_does_not_load(folder):
    done = vitpipe(folder, "predict", "some.png", "--model", "model")
    said(done, 3, "model does not load", "another folder with --model")
    said(vitpipe(folder, "predict", "some.png"), 3, "runs/x/serving/2 does not load")


def test_a_folder_that_cannot_be_written(folder):
    (folder / "runs" / "x" / ".lock").mkdir()  # root, too, cannot open it for writing
    said(vitpipe(folder, "rollback"), 2, "x/.lock cannot be written", "then roll back again")


def test_a_record_that_is_none(folder):
    (folder / "runs" / "x" / "serving" / "2" / "model.json").write_text("{")
    for arguments in (["models", "list"], ["models", "verify"], ["predict", "some.png"]):
        said(vitpipe(folder, *arguments), 3, "serving/2/model.json does not say where the model came from")


def test_a_pushed_model_without_its_artifact_is_named(folder):
    done = vitpipe(folder, "models", "verify")
    assert done.returncode == 0 and "2 pushed version(s), every file as it was pushed" in done.stdout
    assert "serving/1 serves as it was pushed, but its Model artifact /1 is gone or unknown to" in done.stderr
    assert done.stderr.count("warning: ") == 2

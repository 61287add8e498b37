import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.pusher import push
from components.serving_folder import ModelRecord, read_record, serving_now, versions

RECORD = ModelRecord(
    version=1, pushed_at=datetime(2026, 1, 1, tzinfo=UTC), run_id="r", model_id=7, model_uri="/m", model_created_ms=1,
    accuracy=0.9, classes=["a", "b"],
)  # fmt: skip


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights" * 1000)
    return folder


def test_a_push_is_whole_with_its_record(model, tmp_path):
    serving = tmp_path / "serving"
    push(model, serving / "1", RECORD)
    assert (serving / "1" / "variables" / "data").read_bytes() == b"weights" * 1000
    assert read_record(serving / "1") == RECORD == serving_now(serving)
    assert [entry.name for entry in serving.iterdir()] == ["1"]
    assert (serving / "1").stat().st_mode & 0o055 == 0o055  # a model server may run as another user


def test_a_version_is_never_overwritten(model, tmp_path):
    serving = tmp_path / "serving"
    push(model, serving / "1", RECORD)
    with pytest.raises(OSError):
        push(model, serving / "1", RECORD.model_copy(update={"run_id": "other"}))
    assert read_record(serving / "1").run_id == "r"
    assert [entry.name for entry in serving.iterdir()] == ["1"]


def test_a_full_disk_leaves_the_serving_folder_as_it_was(model, tmp_path):
    serving = tmp_path / "serving"
    push(model, serving / "1", RECORD)
    script = f"""
        import resource
        from pathlib import Path
        from tests.components.test_pusher import RECORD
        from components.pusher import push
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            push(Path({str(model)!r}), Path({str(serving / "2")!r}), RECORD)
        except OSError as error:
            print("refused", error.strerror)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert "refused" in done.stdout, done.stderr
    assert [entry.name for entry in serving.iterdir()] == ["1"]


def test_what_a_killed_push_left_is_removed_by_the_next(model, tmp_path):
    serving = tmp_path / "serving"
    (serving / ".tmp-1-killed").mkdir(parents=True)
    push(model, serving / "1", RECORD)
    assert [entry.name for entry in serving.iterdir()] == ["1"]


def test_a_version_that_somebody_else_pushed_is_named(tmp_path):
    (tmp_path / "7").mkdir()
    with pytest.raises(ValueError, match=r"7/model\.json does not say where the model came from"):
        serving_now(tmp_path)


def test_versions_go_by_number_and_ignore_what_is_being_written(tmp_path):
    for name in ("9", "10", ".tmp-11-abc", "notes"):
        (tmp_path / name).mkdir()
    assert versions(tmp_path) == [9, 10]
    assert versions(tmp_path / "missing") == []
    assert serving_now(tmp_path / "missing") is None

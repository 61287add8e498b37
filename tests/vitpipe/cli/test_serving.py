"""Problems with pushed models: each ends as one line that names the file, without a traceback."""

from datetime import UTC, datetime

import pytest
from PIL import Image

from components.model.serving_folder import ModelId, ModelRecord, push, read_record
from tests.helpers.kill import killed_after
from vitpipe.cli.why import _card


@pytest.fixture
def vitpipe(in_this_process):
    return in_this_process


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two pushed versions of a model that TensorFlow cannot load."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"no graph")
    for version in (1, 2):
        record = ModelRecord(
            version=version,
            pushed_at=datetime(2026, 1, 1, tzinfo=UTC),
            run_id="r",
            span=1,
            data_digest="d",
            model=ModelId(uri=f"/{version}", created_ms=1),
            code_version="c",
            settings_digest="s",
            metrics={"accuracy": 0.9},
            signatures=["serving_bytes"],
            classes=["a", "b"],
        )
        push(tmp_path / "model", tmp_path / "runs" / "x" / "serving", record)
    Image.new("RGB", (8, 8)).save(tmp_path / "some.png")
    return tmp_path


def assert_error(done, code, *words):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_a_model_that_does_not_load(vitpipe, folder):
    done = vitpipe(folder, "predict", "some.png", "--model", "model", "--trust-model")
    assert_error(done, 3, "model does not load", "another folder with --model")
    assert_error(vitpipe(folder, "predict", "some.png"), 3, "runs/x/serving/2 does not load")


def test_a_lock_that_cannot_be_written(vitpipe, folder):
    (folder / "runs" / "x" / ".lock").mkdir()  # not even root can open it for writing
    assert_error(vitpipe(folder, "rollback"), 2, "x/.lock cannot be written", "then roll back again")


def test_an_invalid_record(vitpipe, folder):
    (folder / "runs" / "x" / "serving" / "2" / "model.json").write_text("{")
    for arguments in (["models", "list"], ["models", "verify"], ["predict", "some.png"]):
        assert_error(vitpipe(folder, *arguments), 3, "serving/2/model.json does not say where the model came from")


def test_a_pushed_model_without_its_artifact_is_reported(vitpipe, folder):
    done = vitpipe(folder, "models", "verify")
    assert done.returncode == 0 and "2 pushed version(s), all files are unmodified" in done.stdout
    assert "serving/1 can be served, but its Model artifact /1 is gone or unknown to" in done.stderr
    assert done.stderr.count("warning: ") == 2


def test_one_bad_record_does_not_hide_the_others(vitpipe, folder):
    (folder / "runs" / "x" / "serving" / "1" / "model.json").write_text("{")
    for arguments in (["models", "list"], ["models", "list", "--json"]):
        done = vitpipe(folder, *arguments)
        assert_error(done, 3, "serving/1/model.json does not say where the model came from")
        assert "2026-01-01" in done.stdout


def test_a_record_without_figures_can_be_listed_and_restored(vitpipe, folder):
    for version in (1, 2):
        file = folder / "runs" / "x" / "serving" / str(version) / "model.json"
        file.write_text(file.read_text().replace('"accuracy": 0.9', ""))
    assert vitpipe(folder, "models", "list").returncode == 0
    done = vitpipe(folder, "rollback")
    assert (done.returncode, done.stderr) == (0, "") and "version 3 in" in done.stdout


def test_a_folder_that_looks_like_a_version_is_not_listed(vitpipe, folder):
    for name in ("007", "٩"):
        (folder / "runs" / "x" / "serving" / name).mkdir()
    done = vitpipe(folder, "models", "list")
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["1", "2"]
    assert vitpipe(folder, "models", "verify").returncode == 0


def test_a_model_without_a_record_is_loaded_only_if_trusted(vitpipe, folder):
    for command in "predict", "explain":
        done = vitpipe(folder, command, "some.png", "--model", "model")
        assert_error(done, 2, "model has no model.json", "read and write files", "--trust-model")


def test_repeating_a_killed_roll_back_does_not_go_further_back(vitpipe, folder):
    versions = folder / "runs" / "x" / "serving"
    push(
        folder / "model",
        versions,
        read_record(versions / "1").model_copy(update={"version": 3, "model": ModelId(uri="/3", created_ms=1)}),
    )
    code = f"""
        import os, sys
        os.chdir({str(folder)!r})
        sys.argv = ["vitpipe", "rollback"]
        from vitpipe.cli import main
        main()
    """
    assert killed_after(2, code)
    assert read_record(versions / "4").restored_from == 2
    done = vitpipe(folder, "rollback")
    assert done.returncode == 0 and "version 4 in runs/x/serving is version 2 again" in done.stdout
    assert "had done this already" in done.stderr and not (versions / "5").exists()
    done = vitpipe(folder, "rollback")
    assert (done.returncode, done.stderr) == (0, "") and "version 5 in runs/x/serving is version 1 again" in done.stdout


def test_only_the_card_of_the_run_itself_is_named(folder):
    version = folder / "runs" / "x" / "serving" / "1"
    assert _card(version, "r") is None
    (version / "README.md").write_text("card")
    assert _card(version, "r") == version / "README.md"
    assert _card(version, "another run") is None
    (version / "model.json").write_text("{")
    assert _card(version, "r") is None

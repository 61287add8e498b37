import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from components.errors import DataRefused
from components.model.serving_folder import (
    acknowledge,
    interrupted_rollback,
    problems,
    prune,
    push,
    read_record,
    restore,
    serving_now,
    version_by_run,
    versions,
)
from tests.helpers.kill import killed_after
from tests.helpers.model_records import record


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights" * 1000)
    return folder


def test_a_push_is_complete_and_has_a_record(model, tmp_path):
    serving = tmp_path / "serving"
    push(model, serving, record())
    assert (serving / "1" / "variables" / "data").read_bytes() == b"weights" * 1000
    assert read_record(serving / "1") == serving_now(serving)
    assert serving_now(serving).model_copy(update={"files": {}}) == record()
    assert problems(serving / "1") == []
    assert [entry.name for entry in serving.iterdir()] == ["1"]
    assert (serving / "1").stat().st_mode & 0o055 == 0o055  # a model server may run as another user


def test_a_version_is_never_overwritten(model, tmp_path):
    serving = tmp_path / "serving"
    push(model, serving, record())
    with pytest.raises(OSError):
        push(model, serving, record(run_id="other"))
    assert read_record(serving / "1").run_id == "run-1"
    assert [entry.name for entry in serving.iterdir()] == ["1"]


def test_a_full_disk_leaves_the_serving_folder_unchanged(model, tmp_path):
    serving = tmp_path / "serving"
    push(model, serving, record())
    script = f"""
        import resource
        from pathlib import Path
        from components.model.serving_folder import push
        from tests.helpers.model_records import record
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            push(Path({str(model)!r}), Path({str(serving)!r}), record(2))
        except OSError as error:
            print("refused", error.strerror)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert "refused" in done.stdout, done.stderr
    assert [entry.name for entry in serving.iterdir()] == ["1"]


def test_leftovers_of_a_killed_push_are_removed_by_the_next_push(model, tmp_path):
    serving = tmp_path / "serving"
    (serving / ".tmp-1-killed").mkdir(parents=True)
    push(model, serving, record())
    assert [entry.name for entry in serving.iterdir()] == ["1"]


@pytest.mark.parametrize(
    "name",
    [
        "007",
        "07",
        "\N{ARABIC-INDIC DIGIT SEVEN}",
        "\N{FULLWIDTH DIGIT SEVEN}",
        "7 ",
        "+7",
        "-7",
        "0",
        "1_0",
        "9" * 20,
        "7\n",
    ],
)
def test_a_folder_that_a_model_server_ignores_is_not_a_version(tmp_path, name):
    (tmp_path / name).mkdir()
    assert versions(tmp_path) == [] and serving_now(tmp_path) is None


def test_a_link_or_a_file_is_not_a_version(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "8").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "9").write_text("")
    assert versions(tmp_path) == []


def test_a_version_without_a_record_is_named(tmp_path):
    (tmp_path / "7").mkdir()
    with pytest.raises(ValueError, match=r"7/model\.json does not say where the model came from"):
        serving_now(tmp_path)


def test_versions_are_ordered_by_number_and_exclude_temporary_folders(tmp_path):
    for name in ("9", "10", ".tmp-11-abc", "notes"):
        (tmp_path / name).mkdir()
    assert versions(tmp_path) == [9, 10]
    assert versions(tmp_path / "missing") == []
    assert serving_now(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 5000, b'{"version": 1}', b"1" * 5000, b"null"]
)
def test_every_invalid_record_raises_value_error(tmp_path, content):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "model.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"7/model\.json does not say where the model came from"):
        read_record(tmp_path / "7")
    assert version_by_run(tmp_path) == {}


def test_a_record_without_a_time_zone_is_invalid(model, tmp_path):
    """Such times cannot be compared, so the newest pushed model would be unknown."""
    push(model, tmp_path, record())
    file = tmp_path / "1" / "model.json"
    file.write_text(file.read_text().replace("2026-01-01T00:00:00Z", "2026-01-01T00:00:00"))
    with pytest.raises(ValueError, match="does not say where"):
        read_record(tmp_path / "1")


@pytest.fixture
def three(model, tmp_path):
    """A serving folder with three models."""
    for version in (1, 2, 3):
        (model / "variables" / "data").write_bytes(b"weights of %d" % version)
        push(model, tmp_path / "serving", record(version, f"/model-{version}"))
    return tmp_path / "serving"


def test_changed_missing_and_added_files_are_named(three):
    assert problems(three / "2") == []
    (three / "2" / "saved_model.pb").write_bytes(b"another graph")
    (three / "2" / "variables" / "data").unlink()
    (three / "2" / "extra.py").symlink_to(three / "1" / "saved_model.pb")
    lines = problems(three / "2")
    assert [line.split(": ")[0] for line in lines] == [
        str(three / "2" / name) for name in ("extra.py", "saved_model.pb", "variables/data")
    ]
    assert problems(three / "1") == problems(three / "3") == []


def test_a_roll_back_pushes_the_old_model_as_a_new_highest_version(three):
    restored = restore(three, 1)
    assert versions(three) == [1, 2, 3, 4]
    assert (three / "4" / "variables" / "data").read_bytes() == b"weights of 1"
    assert serving_now(three) == read_record(three / "4")
    assert (restored.version, restored.restored_from, restored.run_id) == (4, 1, "run-1")
    assert [model.uri for model in restored.withdrawn] == ["/model-3"]
    assert problems(three / "4") == []


def test_a_rolled_back_model_stays_withdrawn_until_it_is_restored(three):
    restore(three, 2)
    assert [model.uri for model in restore(three, 1).withdrawn] == ["/model-2", "/model-3"]
    assert [model.uri for model in restore(three, 3).withdrawn] == ["/model-1", "/model-2"]


def test_a_roll_back_to_a_missing_serving_or_changed_version_is_rejected(three):
    with pytest.raises(ValueError, match=r"no version 7 in .*: there are 1, 2, 3"):
        restore(three, 7)
    with pytest.raises(ValueError, match="already serves, as version 3"):
        restore(three, 3)
    (three / "1" / "saved_model.pb").write_bytes(b"another graph")
    with pytest.raises(DataRefused, match=r"1/saved_model.pb: expected sha256"):
        restore(three, 1)
    assert versions(three) == [1, 2, 3]


def test_the_newest_versions_are_kept(three):
    assert prune(three, keep=2) == [1]
    assert sorted(entry.name for entry in three.iterdir()) == ["2", "3"]
    assert prune(three, keep=5) == []


def test_a_killed_roll_back_is_remembered_until_it_is_acknowledged(three):
    code = f"""
        from components.model.serving_folder import restore
        restore(Path({str(three)!r}), 2)
    """
    assert killed_after(1, code)  # the note was written, but nothing was pushed
    assert versions(three) == [1, 2, 3] and interrupted_rollback(three) is None
    assert killed_after(2, code)
    assert versions(three) == [1, 2, 3, 4] and interrupted_rollback(three) == serving_now(three)
    acknowledge(three)
    assert interrupted_rollback(three) is None and not killed_after(3, "")


def test_a_push_after_a_killed_roll_back_supersedes_it(three, model):
    restore(three, 2)
    push(model, three, record(5, "/model-5"))
    assert interrupted_rollback(three) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "x", "restores": 1}'])
def test_an_unreadable_note_is_ignored(three, content):
    (three / ".rollback.json").write_text(content)
    assert interrupted_rollback(three) is None


def test_the_records_name_the_run_that_pushed_a_version(three):
    assert version_by_run(three) == {"run-1": "1", "run-2": "2", "run-3": "3"}
    restore(three, 1)  # its record still names run-1, which pushed version 1
    assert version_by_run(three)["run-1"] == "1"
    assert version_by_run(three / "missing") == {}


def test_a_reader_never_sees_half_a_model(three):
    """Another process reads the highest version continuously, while models are restored and removed."""
    script = f"""
        import sys, time
        from pathlib import Path
        from components.model.serving_folder import problems, versions
        folder, seen, end = Path({str(three)!r}), set(), time.monotonic() + 30
        print("reading", flush=True)
        while not (folder.parent / "stop").exists() and time.monotonic() < end:
            if not (listed := versions(folder)):  # the reader was slow: all that it had listed were removed meanwhile
                continue
            newest = listed[-1]
            try:
                wrong = problems(folder / str(newest))
            except (OSError, ValueError) as error:
                wrong = [str(error)]
            if newest not in versions(folder):  # the reader was slow: three pushes later the version is removed
                continue
            assert not wrong, wrong
            seen.add(newest)
        print(len(seen))
    """
    reader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert reader.stdout.readline() == "reading\n"
    for _ in range(60):
        serving = serving_now(three).model
        restore(three, next(v for v in reversed(versions(three)) if read_record(three / str(v)).model != serving))
        prune(three, keep=3)
    (three.parent / "stop").touch()
    out, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    assert int(out) > 3

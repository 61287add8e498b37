import os

import pytest

from components.errors import Exit
from kubeflow.steps import step


def test_parse_end_finds_the_lines_of_a_step_among_others(capsys):
    with pytest.raises(SystemExit) as ended:
        step.end(Exit.NOT_BLESSED, "not blessed, nothing pushed:\n  accuracy 0.1", "the report: r.html", "not\nblessed")
    assert ended.value.code == 4
    log = f"a library\n{capsys.readouterr().out}I1125 10:00:00.0 1 launcher.go:206] done {{\n  }}\n"
    assert step.parse_end(log) == (
        4,
        ["not blessed, nothing pushed:", "  accuracy 0.1", "the report: r.html", "not blessed"],
    )


@pytest.mark.parametrize("log", ["", "Killed\n", "vitpipe: half a line\n", "it says vitpipe: exit 0: in the middle\n"])
def test_parse_end_returns_none_for_a_killed_step(log):
    assert step.parse_end(log) is None


def test_only_the_user_can_write_the_files_of_a_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["step", "--root", str(tmp_path), "--run-id", "run-1"])
    before = os.umask(0)  # as Argo's executor sets it
    try:
        step.parse(step.parser("A step."))
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").touch()
    finally:
        os.umask(before)
    modes = [oct(path.stat().st_mode & 0o777) for path in (tmp_path / "folder", tmp_path / "folder" / "file")]
    assert modes == ["0o755", "0o644"]

"""Tasks as a job of Beam: which failures are tried again."""

import functools

import pytest

from components.errors import DataRefused, EngineError
from pipeline.beam_tasks import TaskRunner
from pipeline.settings.beam import BeamSettings


def fail(path, error, task):
    """Record an attempt at a task, and fail in the first two."""
    with path.open("a") as file:
        file.write(f"{task}\n")
    if len(path.read_text().splitlines()) < 3:
        raise error("worker 7 was lost")


def test_tasks_are_tried_again_if_the_engine_fails(tmp_path):
    messages = []
    TaskRunner(BeamSettings(), messages.append)(
        "count", ["one"], functools.partial(fail, tmp_path / "ran", EngineError)
    )
    assert (tmp_path / "ran").read_text().split() == ["one"] * 3
    assert messages == [f"attempt {n} of 3 failed: worker 7 was lost. Trying again" for n in (1, 2)]


def test_the_last_attempt_raises_the_error_of_the_engine(tmp_path):
    runner = TaskRunner(BeamSettings.model_construct(runner="local", attempts=2))
    with pytest.raises(EngineError, match=r"^worker 7 was lost$"):
        runner("count", ["one"], functools.partial(fail, tmp_path / "ran", EngineError))
    assert (tmp_path / "ran").read_text().split() == ["one"] * 2


@pytest.mark.parametrize(("error", "message"), [(DataRefused, "^worker 7 was lost$"), (ZeroDivisionError, "lost")])
def test_errors_of_the_data_or_the_code_are_not_tried_again(error, message, tmp_path, capfd):
    with pytest.raises(error, match=message):
        TaskRunner(BeamSettings())("count", ["one"], functools.partial(fail, tmp_path / "ran", error))
    assert (tmp_path / "ran").read_text().split() == ["one"]
    assert capfd.readouterr() == ("", "")

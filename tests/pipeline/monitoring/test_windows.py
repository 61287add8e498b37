"""Windows of time contain the answers of all files."""

import json

import pytest

from pipeline.monitoring.log_files import LogFiles, Problems
from pipeline.monitoring.measured import NO_CLASS, MeasuredAnswer
from pipeline.monitoring.serving_log import parse
from pipeline.monitoring.windows import Windows

HOUR = 3600
DAY = 1_704_153_600  # 2024-01-02
NOON = DAY + 12 * HOUR
FILES = ("server-1.jsonl", "server-2.jsonl", "server-3.jsonl")


@pytest.fixture
def day(tmp_path):
    """Logs of three servers, each of which has one answer in each hour of the same day."""
    for name in FILES:
        lines = [json.dumps({"error": "x", "time": DAY + hour * HOUR}) + "\n" for hour in range(24)]
        (tmp_path / name).write_text("".join(lines))
    return tmp_path


def windows_of(folder, keep_open):
    """Return the windows before and after the end of the logs, and the problems."""
    problems = Problems()
    windows = Windows(1, 3, None, HOUR, problems, keep_open)
    measured = [
        MeasuredAnswer(answer, 1, NO_CLASS, None, None)
        for record in LogFiles(folder, problems).read()
        for answer in parse(record, problems)
    ]
    complete = [
        sums for place in range(len(measured)) for sums in windows.add(measured[place : place + 1], DAY + 23 * HOUR)
    ]
    return complete, [*windows.finish()], problems


def test_complete_logs_of_the_same_time_share_their_windows(day):
    complete, rest, problems = windows_of(day, keep_open=True)
    assert not complete and not problems.counts
    assert [(sums.start, len(sums)) for sums in rest] == [(DAY + hour * HOUR, 3) for hour in range(24)]


def test_late_answers_are_counted_while_logs_are_followed(day):
    complete, rest, problems = windows_of(day, keep_open=False)
    assert [len(sums) for sums in complete] == [1] * 22 and [len(sums) for sums in rest] == [3, 3]
    [reason] = problems.counts
    assert "more than one window late" in reason and problems.counts[reason] == 2 * 22


def test_windows_of_answers_are_complete_when_they_are_full(day):
    windows = Windows(1, 3, 10, None, Problems(), keep_open=True)
    [record, *_] = LogFiles(day, Problems()).read()
    [answer] = parse(record, Problems())
    complete = [*windows.add([MeasuredAnswer(answer, 1, NO_CLASS, None, None)] * 25, DAY)]
    assert [len(sums) for sums in complete] == [10, 10] and [len(sums) for sums in windows.finish()] == [5]


@pytest.mark.parametrize(("hours", "places"), [(1, []), (2, ["day.jsonl:2"]), (23, ["day.jsonl:2"])])
def test_an_answer_from_the_future_makes_no_other_one_late(tmp_path, hours, places):
    times = [0, hours, *[0.01 * number for number in range(90)], -0.5]
    lines = [json.dumps({"error": "x", "time": NOON + hour * HOUR}) + "\n" for hour in times]
    (tmp_path / "day.jsonl").write_text("".join(lines))
    problems = Problems()
    windows = Windows(1, 3, None, HOUR, problems)
    for record in LogFiles(tmp_path, problems).read():
        [answer] = parse(record, problems)
        assert not [*windows.add([MeasuredAnswer(answer, 1, NO_CLASS, None, None)], NOON)]
    assert sum(len(sums) for sums in windows.finish()) == len(times) - len(places)
    assert [*problems.places.values()] == ([places] if places else [])
    assert all("a time in the future" in reason for reason in problems.counts)


def test_a_window_that_the_clock_completed_is_not_opened_again(tmp_path):
    problems = Problems()
    windows = Windows(1, 3, None, 60, problems)

    def add(time):
        (tmp_path / "log.jsonl").write_text(json.dumps({"error": "x", "time": time}) + "\n")
        [record] = LogFiles(tmp_path, problems).read()
        [answer] = parse(record, problems)
        return [*windows.add([MeasuredAnswer(answer, 1, NO_CLASS, None, None)], NOON + 120)]

    assert add(NOON + 10) == []
    assert [sums.failed for sums in windows.expire(NOON + 121)] == [1]
    assert add(NOON + 20) == [] and [*windows.expire(NOON + 122)] == []
    assert problems.counts.total() == 1

"""Rows that the workers of an engine measure are those of one process."""

import pandas as pd
import pytest

from components.errors import EngineError
from pipeline.beam_tasks import TaskRunner
from pipeline.monitoring import engine_work, log_files
from pipeline.monitoring.engine_work import measured_parts
from pipeline.monitoring.log_files import LogFiles, Problems, read_part
from pipeline.monitoring.measured import measure_images_of
from pipeline.monitoring.serving_log import parse
from pipeline.settings.beam import BeamSettings
from tests.helpers.spans import bomb, encoded, picture
from tests.helpers.traffic import json_line, prediction_log, write_records
from trainer.framing import Framing

FRAMING = Framing(32)
IN_MEMORY = TaskRunner(BeamSettings())
ANSWER = [0.25, 0.75]


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Folder with logs of both formats, whose lines cross the ends of parts."""
    monkeypatch.setattr(log_files, "_PART", 5000)
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "one.png").write_bytes(encoded(picture(50)))
    lines = [json_line(encoded(picture(seed)), ANSWER) for seed in range(20)]
    lines += ["no JSON\n", json_line(None, ANSWER), json_line(b"GIF89a", ANSWER), json_line(bomb(), ANSWER), "\n"]
    lines += [json_line(image="one.png"), json_line(encoded(picture(3))), json_line(encoded(picture(51))).strip()]
    (folder / "a.jsonl").write_text("".join(lines))
    requests = [prediction_log([encoded(picture(seed)), encoded(picture(seed + 1))], [ANSWER] * 2) for seed in (60, 70)]
    write_records(folder / "b.tfrecord", requests)
    return folder


def answers_in(folder):
    """Return the answers with an image."""
    records = LogFiles(folder, Problems()).read()
    return [answer for record in records for answer in parse(record, Problems()) if answer.image is not None]


def columns(table):
    """Return the columns that are used, as they are read."""
    return table.to_pandas().drop(columns=["offset"])


def test_every_record_is_in_exactly_one_part(logs):
    files = LogFiles(logs, Problems())
    parts = files.parts()
    read = [(str(one.file), one.offset, one.data) for part in parts for one in read_part(part, Problems())]
    assert len(parts) > 5 and read == [(str(one.file), one.offset, one.data) for one in files.read()]


def test_rows_equal_those_of_one_process(logs, tmp_path, monkeypatch):
    answers = answers_in(logs)
    expected = columns(measure_images_of(answers, FRAMING))
    with measured_parts(LogFiles(logs, Problems()).parts(), FRAMING, None, tmp_path, IN_MEMORY) as measured:
        monkeypatch.setattr(engine_work, "measure_images_of", lambda *_: pytest.fail("an image was measured again"))
        rows = measured(answers, FRAMING)
    assert len(answers) == 29 and (rows["reason"].to_pandas() != "").sum() == 2
    pd.testing.assert_frame_equal(columns(rows), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_what_no_worker_measured_is_measured_here(logs, tmp_path):
    with measured_parts(LogFiles(logs, Problems()).parts(), FRAMING, None, tmp_path, IN_MEMORY) as measured:
        (logs / "a.jsonl").rename(logs / "a.jsonl.1")  # it was rotated in the meantime
        (logs / "a.jsonl").write_text("".join(json_line(encoded(picture(seed)), ANSWER) for seed in range(90, 99)))
        answers = answers_in(logs)
        for framing in FRAMING, Framing(16):
            rows = measured(answers, framing)
            pd.testing.assert_frame_equal(columns(rows), columns(measure_images_of(answers, framing)))


def test_a_log_that_is_rotated_before_a_worker_reads_it_is_measured_here(logs, tmp_path):
    parts = LogFiles(logs, Problems()).parts()
    (logs / "a.jsonl").rename(logs / "a.jsonl.1")
    with measured_parts(parts, FRAMING, None, tmp_path, IN_MEMORY) as measured:
        answers = answers_in(logs)
        rows = measured(answers, FRAMING)
    pd.testing.assert_frame_equal(columns(rows), columns(measure_images_of(answers, FRAMING)))


def test_a_worker_without_the_folder_of_the_log_names_it(logs, tmp_path):
    parts = LogFiles(logs, Problems()).parts()
    logs.rename(tmp_path / "elsewhere")
    with (
        pytest.raises(EngineError, match=r"a worker of the engine cannot use .*a\.jsonl: No such file"),
        measured_parts(parts, FRAMING, None, tmp_path, IN_MEMORY),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]

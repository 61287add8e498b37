"""Check and copy of shards: what several problems look like, and a worker that cannot read what this process can."""

import json

import apache_beam as beam
import pytest

from components.data.checked_copy import check_and_copy
from components.data.ingest import tfrecord
from components.errors import DataRefused, EngineError
from pipeline.beam import IN_MEMORY
from tests.helpers.spans import write_span


@pytest.fixture
def span(tmp_path, image):
    rows = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}
    records = {
        split: [tfrecord.example(image(row), row % 2, f"{split}/{row}.png".encode()) for row in numbers]
        for split, numbers in rows.items()
    }
    return write_span(tmp_path / "data", 1, records)


@pytest.fixture
def check(span, tmp_path):
    """Function that checks and copies train and val, and calls another function between the job and its results."""

    def run(after_job=lambda _scratch: None):
        class Pipeline(beam.Pipeline):
            def __exit__(self, *error):
                super().__exit__(*error)
                after_job(scratch)

        targets = {split: tmp_path / "copies" / split for split in ("train", "val")}
        scratch = tmp_path / "copies" / "scratch"
        for folder in *targets.values(), scratch:
            folder.mkdir(parents=True)
        check_and_copy(lambda: Pipeline(argv=[*IN_MEMORY]), {span: "restore it"}, targets, copy=True, scratch=scratch)

    return run


def test_splits_are_copied_unmodified(check, span, tmp_path):
    check()
    copies = sorted(path for path in (tmp_path / "copies").rglob("*.tfrecord"))
    assert [copy.parent.name for copy in copies] == ["train", "val"]
    assert all(copy.read_bytes() == (span / copy.parent.name / copy.name).read_bytes() for copy in copies)


def test_all_problems_are_in_one_message(check, span):
    [shard] = (span / "train").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    (span / "notes.txt").touch()
    with pytest.raises(DataRefused, match=r"notes\.txt: not listed .*tfrecord: expected sha256 .*; restore it$"):
        check()


def test_a_worker_that_cannot_read_an_intact_shard_does_not_refuse_the_data(check):
    def fail(scratch):
        for result in scratch.glob("*train*"):
            result.write_text(json.dumps(["part-00000: found no readable file", []]))

    with pytest.raises(EngineError, match=r"cannot read .*found no readable file.*same path on all machines"):
        check(fail)

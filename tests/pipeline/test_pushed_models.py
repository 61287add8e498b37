"""Pushes whose run was killed before it recorded them."""

import shutil
import sys

import pytest

from components.model.serving_folder import push
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.pushed_models import record_pushes
from pipeline.result.run_result import PUSHED, RunResult
from pipeline.result.summary import summarise
from tests.helpers.model_records import record
from tests.helpers.stores import make_store
from vitpipe.cli import main


@pytest.fixture
def killed(tmp_path):
    """Create the store of three runs, and version 9, which the last of them pushed and did not record."""
    file = tmp_path / "sample" / "metadata.db"
    name = make_store(file, runs=5, process='{"host": "elsewhere", "pid": 1, "started": 0}')[-1]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    push(tmp_path / "model", tmp_path / "sample" / "serving", record(9, run_id=name))
    return tmp_path, name


def test_the_run_that_a_version_names_is_shown_as_its_source(killed, monkeypatch, capsys):
    runs, name = killed
    for command, words in (["runs", "list"], "version 9"), (["why", name], "The model was pushed as version 9."):
        monkeypatch.setattr(sys, "argv", ["vitpipe", *command, "--runs", str(runs)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0 and words in capsys.readouterr().out


def test_the_next_run_records_the_push(killed):
    runs, name = killed
    address = Address(file=runs / "sample" / "metadata.db")
    record_pushes(address, runs / "sample" / "serving")
    shutil.rmtree(runs / "sample" / "serving")
    with reader(address) as store:
        run = store.run(name)
        others = [one for one in store.runs() if one.name != name]
    assert run.version is None and run.facts[PUSHED] == "9" and summarise(RunResult(run)).pushed == "9"
    assert not any(PUSHED in one.facts for one in others)


def test_there_is_nothing_to_record_before_the_first_run(tmp_path):
    record_pushes(Address(file=tmp_path / "metadata.db"), tmp_path / "serving")
    assert not (tmp_path / "metadata.db").exists()

"""`vitpipe runs export --to mlflow`, read back by MLflow's own client from a database of its own."""

import json
import sqlite3
import sys

import pytest
from mlflow import MlflowClient

from tests.helpers.stores import make_store
from vitpipe.cli import main

# MLflow's database store uses what newer versions of SQLAlchemy no longer recommend.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture
def export(tmp_path, monkeypatch, capsys):
    """export() returns exit code, standard output and standard error; `export.client` reads what was exported."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address := f"sqlite:///{tmp_path}/mlflow.db")
    make_store(tmp_path / "runs" / "sample" / "metadata.db", runs=4)

    def command():
        monkeypatch.setattr(sys, "argv", ["vitpipe", "runs", "export", "--to", "mlflow", f"--runs={tmp_path / 'runs'}"])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    command.client = MlflowClient(address)
    return command


def exported(client):
    experiment = client.get_experiment_by_name("sample")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def set_property(table, name, value, tmp_path):
    with sqlite3.connect(tmp_path / "runs" / "sample" / "metadata.db") as store:
        changed = store.execute(f"UPDATE {table} SET string_value = ? WHERE name = ?", (value, name)).rowcount
    assert changed


def test_runs_have_their_settings_figures_and_facts(export):
    assert export()[0] == 0
    runs = exported(export.client)
    assert sorted(runs) == [f"sample-run-{number:03}" for number in range(4)]
    run = runs["sample-run-003"]
    assert run.data.params["data.span"] == "4"
    assert run.data.tags["vitpipe.run"] == "sample-run-003"
    assert run.data.tags["vitpipe.state"] == "done" and run.data.tags["vitpipe.pushed"] == "3"
    assert 0 < run.data.metrics["accuracy"] < 1
    assert run.info.status == "FINISHED" and run.info.end_time >= run.info.start_time
    assert not any("process" in tag for tag in run.data.tags)


def test_a_repeated_export_adds_nothing_and_a_changed_run_is_updated(export, tmp_path):
    assert export()[1] == "4 runs exported, 0 unchanged\n"
    before = {name: run.info.run_id for name, run in exported(export.client).items()}
    assert export()[1] == "0 runs exported, 4 unchanged\n"
    set_property("ContextProperty", "trigger", "schedule", tmp_path)
    assert export()[1] == "4 runs exported, 0 unchanged\n"
    after = exported(export.client)
    assert {name: run.info.run_id for name, run in after.items()} == before
    assert after["sample-run-003"].data.tags["vitpipe.trigger"] == "schedule"
    assert len(export.client.get_metric_history(before["sample-run-003"], "accuracy")) == 1


def test_names_of_classes_become_names_that_mlflow_accepts(export, tmp_path):
    judgement = {"candidate": {"accuracy": 0.125, "class_accuracy": {"a/ä": 0.5, "a/ö": 0.25, "b": float("nan")}}}
    set_property("ArtifactProperty", "judgement", json.dumps(judgement), tmp_path)
    assert export()[0] == 0
    metrics = exported(export.client)["sample-run-003"].data.metrics
    assert metrics["accuracy"] == 0.125
    assert sorted(value for name, value in metrics.items() if name.startswith("class_accuracy/")) == [0.25, 0.5]


def test_without_an_address_the_fix_is_named(export, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, _, errors = export()
    assert code == 2 and "MLFLOW_TRACKING_URI is not set" in errors


def test_a_server_that_does_not_answer_is_named_without_its_password(export, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:s3cret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, errors = export()
    assert code == 1 and "http://127.0.0.1:9" in errors and "s3cret" not in out + errors

"""`vitpipe runs export --to mlflow`, read back by MLflow's own client from a database of its own."""

import json
import sqlite3
import sys

import pytest
from mlflow import MlflowClient

from pipeline.result.run_result import this_process
from tests.helpers.stores import make_store
from vitpipe.cli import main

# MLflow's database store uses what newer versions of SQLAlchemy no longer recommend.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture
def export(tmp_path, monkeypatch, capsys):
    """export() returns exit code, standard output and standard error; `export.client` reads what was exported."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address := f"sqlite:///{tmp_path}/mlflow.db")
    make_store(tmp_path / "runs" / "sample" / "metadata.db", runs=8, process=this_process())

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
    assert sorted(runs) == [f"sample-run-{number:03}" for number in range(8)]
    run = runs["sample-run-003"]
    assert run.data.params["data.span"] == "4"
    assert run.data.tags["vitpipe.run"] == "sample-run-003"
    assert run.data.tags["vitpipe.state"] == "done" and run.data.tags["vitpipe.pushed"] == "3"
    assert 0 < run.data.metrics["accuracy"] < 1
    assert run.info.status == "FINISHED" and run.info.end_time >= run.info.start_time
    assert {name[-1]: run.info.status for name, run in runs.items() if name[-1] in "567"} == {
        "5": "FINISHED",
        "6": "FAILED",
        "7": "RUNNING",  # in the process of this test
    }
    assert not any(this_process() in tag for run in runs.values() for tag in run.data.tags.values())


def test_a_repeated_export_adds_nothing_and_a_changed_run_is_updated(export, tmp_path):
    assert export()[1] == "8 runs exported, 0 unchanged\n"
    before = {name: run.info.run_id for name, run in exported(export.client).items()}
    assert export()[1] == "0 runs exported, 8 unchanged\n"
    set_property("ContextProperty", "trigger", "schedule", tmp_path)
    assert export()[1] == "8 runs exported, 0 unchanged\n"
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


def test_what_a_person_deleted_in_mlflow_is_not_exported_again(export):
    export()
    export.client.delete_run(exported(export.client)["sample-run-002"].info.run_id)
    assert export()[1] == "0 runs exported, 8 unchanged\n"
    assert len(exported(export.client)) == 7
    export.client.delete_experiment(export.client.get_experiment_by_name("sample").experiment_id)
    code, _, errors = export()
    assert code == 1 and "experiment sample was deleted on the tracking server: restore it" in errors


def test_a_run_that_the_server_rejects_does_not_stop_the_others(export, tmp_path):
    with sqlite3.connect(tmp_path / "runs" / "sample" / "metadata.db") as store:
        [(run,)] = store.execute("SELECT id FROM Context WHERE name = 'sample-run-007'").fetchall()
        store.execute("DELETE FROM Association WHERE context_id = ?", (run,))  # it has not started a node yet
        store.execute("DELETE FROM ContextProperty WHERE context_id = ? AND name = 'settings'", (run,))
    code, out, errors = export()
    assert code == 0 and out == "7 runs exported, 0 unchanged\n"
    assert "run sample-run-007 is not exported: its pipeline is unknown" in errors


def test_without_an_address_the_fix_is_named(export, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, _, errors = export()
    assert code == 2 and "MLFLOW_TRACKING_URI is not set" in errors


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://someone:s3cret@127.0.0.1:9", "http://127.0.0.1:9 cannot be used"),
        ("http://[s3cret", "not a valid address"),
        ("mysql://someone:s3cret@127.0.0.1:9/db?password=s3cret", "mysql://127.0.0.1:9/db cannot be used"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_without_its_password(export, monkeypatch, address, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, errors = export()
    assert code == 1 and shown in errors and "s3cret" not in out + errors

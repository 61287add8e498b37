"""A search for better settings through the command, from a killed search to a pushed model that was trained with it."""

import json
import shutil
import signal
import subprocess

import pytest

from pipeline.drawing.graph_steps import WITHOUT_TUNING
from pipeline.settings import load
from tests.helpers.command import SHORT, command, read_report, run_id, states, vitpipe, with_settings
from vitpipe.ui.app import create_app
from vitpipe.watcher import Watcher

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]
SETTINGS = {**SHORT, "training.epochs": 3, "tune.space.augment.crop_padding": "null"}


@pytest.fixture(scope="module")
def searched(sample_data, tmp_path_factory):
    """Folder in which a search of three trials was killed after the first one and started again, and that process."""
    folder = shutil.copytree(sample_data, tmp_path_factory.mktemp("tuning") / "work")
    search = ["tune", "-c", "sample", "--trials", "3", *with_settings(SETTINGS)]
    line, options = command(folder, *search)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as killed:
        for text in killed.stderr:
            if text.startswith("  trial 1: val"):
                break
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    done = vitpipe(folder, *search)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_a_killed_search_continues_and_names_the_best_trial(searched):
    folder, done = searched
    assert "1 of them ended in an earlier run" in done.stderr
    assert states(done)["Tuner"] == "complete" and not states(done).keys() & {*WITHOUT_TUNING}
    report = read_report(folder, done)
    assert [trial["number"] for trial in report["trials"]] == [1, 2, 3]
    assert (report["judgement"], report["history"]) == (None, [])
    page = folder / "runs/sample/reports" / run_id(done) / "report.html"
    assert "Accuracy on val by training.learning_rate" in page.read_text()
    tuning = json.loads(vitpipe(folder, "why", "last", "--json").stdout)["tuning"]
    best = max(report["trials"], key=lambda trial: (trial["state"] == "complete", trial["accuracy"]))
    assert (tuning["run"], tuning["trials"], tuning["values"]) == (run_id(done), 3, best["values"])
    [artifact] = (folder / "runs/sample/root/Tuner/best_hyperparameters").glob("*/*")
    keras_tuner = pytest.importorskip("keras_tuner")
    read = keras_tuner.HyperParameters.from_config(json.loads(artifact.read_text()))  # as other Trainers of TFX do
    assert read.values == best["values"]


def test_a_tuning_is_no_training_for_the_watcher_and_the_ui_shows_it(searched, monkeypatch):
    folder, done = searched
    monkeypatch.chdir(folder)
    trained = []
    settings = load("sample", [f"{key}={value}" for key, value in SETTINGS.items()], {})
    Watcher(settings, lambda span, trigger, reason: trained.append(span) or 0, print).once()
    assert trained == [1]
    page = create_app(folder / "runs").test_client().get(f"/sample/runs/{run_id(done)}")
    assert page.status_code == 200
    assert "The search for better settings has ended." in page.text and "Evaluator, not run" not in page.text


def test_a_model_is_trained_with_the_result_and_its_lineage_names_the_tuning(searched, tmp_path):
    folder = shutil.copytree(searched[0], tmp_path / "work")
    train = ["run", "-c", "sample", *with_settings(SETTINGS | {"training.tuned": "true"})]
    refused = vitpipe(folder, *train, "--set", "training.learning_rate=0.1")
    assert refused.returncode == 2 and "the tuning decides this value" in refused.stderr
    done = vitpipe(folder, *train)
    assert done.returncode == 0 and (folder / "runs/sample/serving/1").is_dir(), done.stdout + done.stderr
    tuning = json.loads(vitpipe(folder, "why", "last", "--json").stdout)["tuning"]
    assert tuning["run"] == run_id(searched[1])
    report = read_report(folder, done)
    assert report["settings"]["training"]["learning_rate"] == tuning["values"]["training.learning_rate"]
    assert run_id(searched[1]) in report["tuned"]
    lineage = vitpipe(folder, "lineage", "v1").stdout
    assert "HyperParameters" in lineage and f"Tuner, in run {run_id(searched[1])}" in lineage
    again = vitpipe(folder, *train)
    assert again.returncode == 0 and states(again)["Trainer"] == "cached"
    other = vitpipe(folder, *train, "--set", "tune.space.training.weight_decay=null")
    assert other.returncode == 2 and "run `vitpipe tune`" in other.stderr

"""Warm start on data with one more class: the head is rebuilt, and the gate compares shared classes."""

import pytest

from components.model.serving_folder import read_record
from tests.helpers.command import read_report, report_page, run_id, vitpipe, with_settings

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = {
    "name": "digits",
    "model.depth": 2,
    "training.epochs": 12,
    "gate.accuracy": 0.5,
    "gate.class_accuracy": 0,
    "gate.calibration": 1,
    "gate.tolerance": 0.2,
}


def run(folder, data, **settings):
    return vitpipe(folder, "run", "-c", "sample", "--data", data, *with_settings(SETTINGS | settings))


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Run on two classes, and then on three from the weights of the first model."""
    folder = tmp_path_factory.mktemp("new-class")
    for data, classes in ("two", "zero,one"), ("three", "zero,one,two"):
        prepared = vitpipe(folder, "data", "prepare", "sample", "--classes", classes, "--out", data)
        assert prepared.returncode == 0, prepared.stderr
    first = run(folder, "two")
    assert first.returncode == 0, first.stderr
    return folder, run(folder, "three", **{"training.warm_start": "true"})


def test_the_model_of_three_classes_is_pushed(story):
    folder, done = story
    assert done.returncode == 0, done.stdout + done.stderr
    versions = folder / "runs" / "digits" / "serving"
    assert read_record(versions / "2").classes == ["zero", "one", "two"]


def test_the_command_and_the_report_name_what_was_taken_over(story):
    folder, done = story
    words = "warm start from version 1: head rebuilt, weights of 2 classes copied by name, 1 new: two"
    assert done.stderr.splitlines()[0] == words
    assert words in done.stdout
    why = vitpipe(folder, "why", run_id(done))
    assert f"The training was a {words}." in why.stdout
    assert "the classes that both know (zero, one)." in why.stdout
    assert read_report(folder, done)["warm_start"] == words
    assert words in report_page(folder, done).read_text()


def test_the_gate_compares_the_shared_classes_and_reports_it(story):
    folder, done = story
    judgement = read_report(folder, done)["judgement"]
    found = judgement["comparison"]
    assert found["shared"] == ["zero", "one"] and judgement["serving"] is None
    assert 20 <= found["examples"] < judgement["candidate"]["examples"]
    assert found["accuracies"][1] > 0.9  # the serving model knows its own classes
    assert "accuracy against the serving model" in {check["name"] for check in judgement["checks"]}
    assert "warning: the serving model has other classes: the two are compared only on the" in done.stdout


def test_another_architecture_is_rejected_at_once(story):
    folder, _ = story
    refused = run(folder, "three", **{"training.warm_start": "true", "model.depth": 3})
    assert refused.returncode == 2
    assert "depth 2, not 3" in refused.stderr and "starting TFX" not in refused.stderr

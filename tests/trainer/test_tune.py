"""Searches: what a study decides, and real searches with killed processes, two processes and failed trials."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import search as helper
from trainer.search_space import TuneSettings
from trainer.trial_messages import Ending
from trainer.trials import Trial, best
from trainer.tune import JOURNAL, Study, search

ROOT = Path(__file__).parents[2]
RATE = {"training": {"learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}}
SETTINGS = helper.job(Path()).settings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    helper.write_data(folder)
    return folder


def rows(*accuracies):
    return [{"epoch": epoch, "val_accuracy": value, "seconds": 1.0} for epoch, value in enumerate(accuracies, 1)]


def run_trial(study, accuracies, state="complete"):
    """Run a trial with these accuracies. Returns the trial, and whether the study would prune it."""
    trial = study.ask()
    prune = study.report(trial, rows(*accuracies))
    return study.tell(trial, Ending(state, "too bad" if state == "failed" else ""), rows(*accuracies)), prune


def test_the_first_trial_has_the_values_of_the_settings_if_the_space_contains_them(tmp_path):
    study = Study(SETTINGS, TuneSettings(space=RATE), tmp_path / "with")
    assert study.ask().params == {"training.learning_rate": SETTINGS.training.learning_rate}
    other = {"training": {"learning_rate": {"choices": [0.3, 0.4]}}}
    study = Study(SETTINGS, TuneSettings(space=other), tmp_path / "without")
    assert study.ask().params["training.learning_rate"] in (0.3, 0.4)


def test_a_bad_trial_is_pruned_after_the_startup_trials_and_the_warmup(tmp_path):
    study = Study(SETTINGS, TuneSettings(space=RATE, startup_trials=2), tmp_path)
    assert not run_trial(study, (0.5, 0.9))[1]
    assert not run_trial(study, (0.1, 0.1))[1]  # a startup trial
    run_trial(study, (0.5, 0.8))
    trial = study.ask()
    assert not study.report(trial, rows(0.1))  # within the warmup of one epoch
    assert study.report(trial, rows(0.1, 0.2)[1:])
    told = study.tell(trial, Ending("pruned"), rows(0.1, 0.2))
    assert (told.state, told.accuracy, told.epoch, told.epochs) == ("pruned", 0.2, 2, 2)
    assert not run_trial(study, (0.5, 0.95))[1]
    assert best(study.ended()).accuracy == 0.95


def test_a_resumed_study_asks_for_the_trials_of_an_unbroken_one(tmp_path):
    settings = TuneSettings(space=RATE, startup_trials=2)
    accuracies = [(0.5,), (0.6,), (0.7,), (0.4,), (0.8,)]
    unbroken = Study(SETTINGS, settings, tmp_path / "unbroken")
    wanted = [run_trial(unbroken, values)[0] for values in accuracies]
    for number, values in enumerate(accuracies):
        study = Study(SETTINGS, settings, tmp_path / "broken")  # each trial in a new process
        if number == 3:
            study.ask()  # killed while it trains, in the middle of a write
            with (tmp_path / "broken" / JOURNAL).open("ab") as file:
                file.write(b'{"op_code": 6, "worker')
            study = Study(SETTINGS, settings, tmp_path / "broken")
        run_trial(study, values)
    assert Study(SETTINGS, settings, tmp_path / "broken").ended() == wanted
    assert [trial.number for trial in wanted] == [1, 2, 3, 4, 5]


def test_failed_trials_count_and_never_win(tmp_path):
    study = Study(SETTINGS, TuneSettings(space=RATE), tmp_path)
    run_trial(study, (0.9,), "failed")
    assert best(study.ended()) is None
    run_trial(study, (0.2,))
    assert [(trial.state, trial.error) for trial in study.ended()] == [("failed", "too bad"), ("complete", "")]
    assert best(study.ended()).number == 2


def test_a_trial_whose_process_dies_twice_has_failed(tmp_path):
    study = Study(SETTINGS, TuneSettings(space=RATE), tmp_path)
    first = study.ask()
    study.died(first, -9, [])
    assert not study.ended()
    second = study.ask()
    assert (second.params, study.trial_folder(second)) == (first.params, study.trial_folder(first))
    study.died(second, -9, [])
    [trial] = study.ended()
    assert trial.state == "failed" and "code -9" in trial.error


def test_trials_as_lines():
    trial = Trial(number=3, state="pruned", values={"a.b": 0.12345}, accuracy=0.5, epoch=1, epochs=2, seconds=4.2)
    assert str(trial) == "trial 3: pruned after epoch 2, val 0.5000 in epoch 1, 4 s; a.b 0.1235"


@pytest.mark.slow
def test_a_killed_search_continues_where_it_was(data, tmp_path):
    settings = json.dumps({"trials": 3, "space": RATE})
    command = [sys.executable, helper.__file__, data, tmp_path / "study", settings]
    options = {
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    with subprocess.Popen(command, **options) as killed:
        wait_for(lambda: [*(tmp_path / "study/trials/2").glob("epoch-00002.npz")])
        [worker] = psutil.Process(killed.pid).children()
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    worker.wait(20)  # it ends with the search
    before = Study(SETTINGS, TuneSettings.model_validate_json(settings), tmp_path / "study")
    assert [trial.number for trial in before.ended()] == [1]

    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stdout
    assert "1 of them ended in an earlier run" in done.stdout
    assert "continuing from" in done.stdout and "trials/2/epoch-0000" in done.stdout
    trials = Study(SETTINGS, TuneSettings.model_validate_json(settings), tmp_path / "study").ended()
    assert [(trial.number, trial.state, trial.epochs) for trial in trials] == [
        (1, "complete", 6),
        (2, "complete", 6),
        (3, "complete", 6),
    ]
    assert trials[0] == before.ended()[0]
    again = subprocess.run(command, **options)  # nothing is left to do, so no process starts
    assert again.returncode == 0 and "is reading the images" not in again.stdout


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_of_them_is_killed(data, tmp_path, monkeypatch):
    slow = helper.job(data, epochs=30)
    tune = TuneSettings(trials=4, processes=2, startup_trials=4, space=RATE)
    started = []
    popen = subprocess.Popen

    def remember(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remember)
    report = Study.report

    def report_and_kill(self, trial, new):
        if trial.user_attrs["number"] == 2 and new[-1]["epoch"] >= 3 and len(started) == 2:
            [running] = [each for each in started if each.poll() is None and each is not started[0]]
            running.kill()
        return report(self, trial, new)

    monkeypatch.setattr(Study, "report", report_and_kill)
    trials = search(slow, tune, tmp_path)
    assert [(trial.number, trial.state, trial.epochs) for trial in trials] == [
        (number, "complete", 30) for number in (1, 2, 3, 4)
    ]
    assert len(started) == 3  # the killed process was replaced
    assert len({trial.values["training.learning_rate"] for trial in trials}) == 4
    assert not [*(tmp_path / "trials").iterdir()]


@pytest.mark.slow
def test_values_that_do_not_fit_or_diverge_fail_alone(data, tmp_path):
    """A learning rate at which the loss is not finite, and a width that the heads do not divide."""
    choices = {"model": {"width": {"choices": [16, 18]}, "heads": {"choices": [2, 4]}}}
    choices["training"] = {"learning_rate": {"choices": [1e-2, 1e3]}, "weight_decay": {"choices": [0.05, 1e3]}}
    job = helper.job(data, epochs=2, batch_size=8, warmup_epochs=0)
    trials = search(job, TuneSettings(trials=6, startup_trials=6, space=choices), tmp_path)
    assert len(trials) == 6 and best(trials).number == 1
    with pytest.raises(RuntimeError, match="all 1 trials failed, the last with: the loss is not finite"):
        diverging = helper.job(data, epochs=2, batch_size=8, weight_decay=1e3, warmup_epochs=0)
        space = {"training": {"learning_rate": {"choices": [1e3]}}}
        search(diverging, TuneSettings(trials=1, space=space), tmp_path / "other")


def wait_for(condition, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)

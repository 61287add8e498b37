"""Whole runs of compiled packages without a cluster. Each step is a process; ML Metadata is on a MariaDB server."""

import json
import multiprocessing
import shutil
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from kubeflow.compile import package
from pipeline.metadata.address import PASSWORD as VARIABLE
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import EXIT, RunResult, RunState
from pipeline.result.summary import summarise
from pipeline.settings import load
from tests.helpers import kubernetes_api
from tests.helpers.command import SHORT
from tests.helpers.mariadb import PASSWORD
from tests.helpers.stores import answers
from tests.helpers.walk import Processes, walk

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.mysql, pytest.mark.timeout(1800)]


def stop_first_training(process, arguments, attempt, how, folder):
    """Send the signal `how` to the first training once it has written a checkpoint."""
    if arguments[-1] != "Trainer" or attempt:
        return
    while not list(folder.glob("runs/*/checkpoints/*/epoch-*.npz")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(how)


class Stop:
    """Callable that stops the first training of a walk. It is a class, because a closure cannot be pickled."""

    def __init__(self, how, folder):
        self._how, self._folder = how, folder

    def __call__(self, process, arguments, attempt):
        stop_first_training(process, arguments, attempt, self._how, self._folder)


@pytest.fixture(scope="module")
def walks(mariadb, sample_data, tmp_path_factory):
    """Two pipelines that run at the same time on one store. A signal stops the first training of each.

    The first pipeline pushes its model, the model of the second is not blessed.
    """
    first, second = (
        shutil.copytree(sample_data, tmp_path_factory.mktemp("walks"), dirs_exist_ok=True) for _ in range(2)
    )
    address = mariadb.database("walks")
    results = []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for folder, name, accuracy, how in (first, "sample", 0, signal.SIGKILL), (second, "other", 1, signal.SIGTERM):
            settings = SHORT | {
                "name": name,
                "gate.accuracy": accuracy,
                "kubeflow.image": "vitpipe:1",
                "kubeflow.mount": folder,
                "kubeflow.metadata": address,
            }
            flags = [f"{key}={value}" for key, value in settings.items()]
            text = package(load("sample", flags, environment={}))
            results.append(pool.submit(walk, text, folder / "kfp", Processes({VARIABLE: PASSWORD}), Stop(how, folder)))
        pushed, stopped = (result.result() for result in results)
    return (first, pushed), (second, stopped), Address.parse(address, PASSWORD)


def run_of(address, done):
    with reader(address) as store:
        return store.run(done.attempts[0].run_id)


def test_a_killed_training_continues_from_its_checkpoint_and_is_pushed(walks):
    (folder, done), _, address = walks
    assert [one.name for one in done.attempts if one.code] == ["Trainer"], done.attempts
    assert done.codes("Trainer") == [-signal.SIGKILL, 0]
    assert "continuing from" in done.last("Trainer").output and "epoch 1/" not in done.last("Trainer").output
    assert "pushed version 1" in done.last("kubeflow.steps.verdict").output
    assert done.last("kubeflow.steps.verdict").output.rstrip().endswith("vitpipe: exit 0: done")
    assert (folder / "runs" / "sample" / "serving" / "1" / "model.json").is_file()
    run = run_of(address, done)
    assert run.facts[EXIT] == "0"
    assert {one.state for one in run.executions} == {"complete"}


def test_a_run_that_is_not_blessed_ends_with_exit_code_4_and_a_report(walks):
    _, (folder, done), address = walks
    assert done.codes("Trainer") == [128 + signal.SIGTERM, 0]
    assert "continuing from" in done.last("Trainer").output
    assert done.last("Pusher").output.rstrip().endswith("vitpipe: exit 0: Pusher is skipped")
    assert done.codes("kubeflow.steps.verdict") == [4, 4]  # the verdict is retried once, in case its pod was lost
    assert "accuracy 0." in done.last("kubeflow.steps.verdict").output
    assert done.last("kubeflow.steps.verdict").output.rstrip().endswith("vitpipe: exit 4: not blessed")
    assert not (folder / "runs" / "other" / "serving").exists()
    assert summarise(RunResult(run_of(address, done))).state is RunState.NOT_BLESSED
    page = (folder / "kfp" / "report.html").read_text()
    assert "not blessed, nothing pushed" in page
    executor_output = json.loads((folder / "kfp" / "output.json").read_text())
    [metrics] = executor_output["artifacts"]["metrics"]["artifacts"]
    assert 0 < metrics["metadata"]["accuracy"] < 1


def test_the_store_equals_that_of_a_local_run(walks, short_run):
    (_, done), _, address = walks
    with reader(address) as server, reader(Address(short_run[0] / "runs/sample/metadata.db")) as file:
        [run_id] = file.run_names()
        assert answers(server, done.attempts[0].run_id) == answers(file, run_id)


def test_no_password_is_in_logs_and_run_folders(walks):
    for folder, done in walks[:2]:
        texts = [one.output for one in done.attempts] + [
            path.read_text(errors="replace") for path in Path(folder, "runs").rglob("*") if path.is_file()
        ]
        assert not any(PASSWORD in text or PASSWORD.split()[0] in text for text in texts)


def test_workers_in_pods_end_with_the_step_and_continue_with_its_next_attempt(mariadb, sample_data, tmp_path):
    folder = shutil.copytree(sample_data, tmp_path / "workers")
    settings = SHORT | {
        "training.workers": 2,
        "kubeflow.image": "vitpipe:1",
        "kubeflow.mount": folder,
        "kubeflow.metadata": mariadb.database("workers"),
    }
    text = package(load("sample", [f"{key}={value}" for key, value in settings.items()], environment={}))
    cluster, left = kubernetes_api.Cluster(), []

    def stop(process, arguments, attempt):
        stop_first_training(process, arguments, attempt, signal.SIGTERM, folder)
        if arguments[-1] == "Trainer" and attempt == 0:
            process.wait()
            left.extend([*cluster.jobs, *cluster.services])

    with kubernetes_api.serve(cluster, tmp_path) as environment:
        done = walk(text, folder / "kfp", Processes({VARIABLE: PASSWORD, **environment}), stop)
    assert done.codes("Trainer") == [128 + signal.SIGTERM, 0], done.last("Trainer").output
    assert not left
    assert cluster.created == ["Service", "Job"] * 2
    assert not cluster.jobs and not cluster.services
    output = done.last("Trainer").output
    assert "on 2 CPUs" in output and "continuing from" in output and "epoch 1/" not in output
    assert "pushed version 1" in done.last("kubeflow.steps.verdict").output


def test_a_killed_search_continues_and_a_training_takes_its_result(mariadb, sample_data, tmp_path):
    folder = shutil.copytree(sample_data, tmp_path / "walk")
    settings = SHORT | {
        "training.epochs": 2,
        "tune.trials": 2,
        "tune.space.augment.crop_padding": "null",
        "kubeflow.image": "vitpipe:1",
        "kubeflow.mount": folder,
        "kubeflow.metadata": mariadb.database("tuning"),
    }

    def kill_in_second_trial(process, arguments, attempt):
        if arguments[-1] == "Tuner" and not attempt:
            while not list(folder.glob("runs/*/tuning/*/trials/2/epoch-*.npz")) and process.poll() is None:
                time.sleep(0.05)
            process.kill()

    def walked(tune, *more):
        text = package(load("sample", [*(f"{key}={value}" for key, value in settings.items()), *more], {}), tune)
        return walk(text, folder / "kfp", Processes({VARIABLE: PASSWORD}), kill_in_second_trial)

    address = Address.parse(settings["kubeflow.metadata"], PASSWORD)
    search = walked(True)
    assert search.codes("Tuner") == [-signal.SIGKILL, 0]
    assert "1 of them ended in an earlier run" in search.last("Tuner").output
    assert search.last("kubeflow.steps.verdict").output.rstrip().endswith("vitpipe: exit 0: done")
    training = walked(False, "training.tuned=true")
    assert training.codes("kubeflow.steps.verdict") == [0]
    result = RunResult(run_of(address, training))
    assert result.tuned == RunResult(run_of(address, search)).tuning
    assert result.pushed == "1"

"""Trainings in separate processes: killed and started again, distributed over devices and over workers."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import job

pytestmark = pytest.mark.slow
JOB = Path(job.__file__)
ROOT = Path(__file__).parents[2]
# Every source of random numbers is on, so that a difference in any of them is detected.
SETTINGS = {
    "model": {"depth": 2, "dropout": 0.1, "stochastic_depth": 0.5},
    "augment": {"randaugment_ops": 1, "mixup": 0.8, "cutmix": 1.0, "erase": 0.5, "mixing_epochs": 0.5},
}


def start(folder, environment=None, **settings):
    return subprocess.Popen(
        [sys.executable, JOB, folder, json.dumps(SETTINGS | settings)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    return out


def weights(folder, worker=0):
    with np.load(folder / f"weights-{worker}.npz") as archive:
        return {key: archive[key] for key in archive.files}


def curve(folder):
    rows = [json.loads(line) for line in (folder / "log" / "history.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")} for row in rows]


def assert_alike(one, two):
    """Assert equality within float32 rounding, because the number of devices changes the order of additions."""
    for left, right in zip(curve(one), curve(two), strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    for name, weight in weights(one).items():
        np.testing.assert_allclose(weights(two)[name], weight, atol=1e-4, err_msg=name)


def test_a_killed_training_continues_and_ends_with_the_same_weights(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    unbroken.mkdir()
    broken.mkdir()
    finish(start(unbroken))
    killed = start(broken)
    for line in killed.stdout:
        if line.startswith("epoch 2/4"):
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (broken / "weights-0.npz").exists()

    out = finish(start(broken))
    assert "continuing from" in out
    assert "epoch 1/4" not in out and "epoch 4/4" in out
    assert_alike(broken, unbroken)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The result of a training on one device."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder))
    return folder


def test_two_processes_with_equal_settings_train_bit_identical_weights(alone, tmp_path):
    finish(start(tmp_path))
    assert curve(tmp_path) == curve(alone)
    for name, weight in weights(alone).items():
        np.testing.assert_array_equal(weights(tmp_path)[name], weight, err_msg=name)


def test_two_devices_train_the_same_weights_as_one(alone, tmp_path):
    out = finish(start(tmp_path, replicas=2))
    assert "on 2 CPUs" in out
    assert_alike(alone, tmp_path)


def test_two_devices_train_the_same_weights_as_one_with_muon(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    muon = {"optimizer": "muon", "learning_rate": 3e-3}
    finish(start(one, training=muon))
    finish(start(two, training=muon, replicas=2))
    assert_alike(one, two)


def test_two_workers_end_with_equal_weights_and_one_writes(alone, tmp_path):
    def free_port():
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            return probe.getsockname()[1]

    cluster = {"worker": [f"localhost:{free_port()}", f"localhost:{free_port()}"]}
    workers = [
        start(tmp_path, {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})})
        for index in range(2)
    ]
    for worker in workers:
        finish(worker)
    for name, weight in weights(tmp_path, worker=0).items():
        np.testing.assert_array_equal(weights(tmp_path, worker=1)[name], weight, err_msg=name)
    assert [row["epoch"] for row in curve(tmp_path)] == [1, 2, 3, 4]  # two writers would leave eight rows
    assert len(list((tmp_path / "log").glob("events.*"))) == 1
    assert_alike(alone, tmp_path)

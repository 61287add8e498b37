"""Trainings as processes of their own: killed and started again, spread over devices, and over workers."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

JOB = Path(__file__).with_name("job.py")
ROOT = JOB.parents[2]
# Everything random takes part, so that a difference in any draw shows.
SETTINGS = {"augment": {"mixup": 0.8, "cutmix": 1.0, "erase": 0.5, "mixing_epochs": 0.5}}


def start(folder, name, environment=None, **settings):
    return subprocess.Popen(
        [sys.executable, JOB, folder, json.dumps({**SETTINGS, "name": name, **settings})],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow", **(environment or {})},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    return out


def weights(folder, name):
    with np.load(folder / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


def curve(folder, name):
    rows = [json.loads(line) for line in (folder / name / "history.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")} for row in rows]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    finish(start(folder, "job"))
    return folder


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(unbroken, tmp_path):
    killed = start(tmp_path, "job")
    for line in killed.stdout:
        if line.startswith("epoch 2/4"):
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "job.npz").exists()

    out = finish(start(tmp_path, "job"))
    assert "goes on from" in out
    assert "epoch 1/4" not in out and "epoch 4/4" in out
    assert curve(tmp_path, "job") == curve(unbroken, "job")
    for name, weight in weights(unbroken, "job").items():
        np.testing.assert_array_equal(weights(tmp_path, "job")[name], weight, err_msg=name)


def assert_alike(one, two):
    for left, right in zip(curve(*one), curve(*two), strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    for name, weight in weights(*one).items():
        np.testing.assert_allclose(weights(*two)[name], weight, atol=1e-4, err_msg=name)


def test_two_devices_learn_what_one_learns(unbroken, tmp_path):
    out = finish(start(tmp_path, "job", replicas=2))
    assert "on 2 CPUs" in out
    assert_alike((unbroken, "job"), (tmp_path, "job"))


def test_two_workers_end_with_equal_weights(unbroken, tmp_path):
    def free_port():
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            return probe.getsockname()[1]

    cluster = {"worker": [f"localhost:{free_port()}", f"localhost:{free_port()}"]}
    workers = [
        start(
            tmp_path, f"worker-{index}",
            {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})},
        )
        for index in range(2)
    ]  # fmt: skip
    for worker in workers:
        finish(worker)
    for name, weight in weights(tmp_path, "worker-0").items():
        np.testing.assert_array_equal(weights(tmp_path, "worker-1")[name], weight, err_msg=name)
    assert_alike((unbroken, "job"), (tmp_path, "worker-0"))
    assert [path.name for path in (tmp_path / "checkpoints" / "tiny").iterdir()]  # the chief's, once

"""Trainings with several real worker processes: uninterrupted, killed, with invalid input, and with a killed parent."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from components.model import workers
from components.model.workers import RESTARTS, LocalWorkers, log_file
from tests.helpers.training import SIZE, write_inputs
from trainer.serving import read_vit
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.worker import Job

ROOT = Path(__file__).parents[3]
# Every source of random numbers is on, so that a difference in any of them is detected.
MODEL = ModelSettings(image_size=SIZE, depth=2, width=16, heads=2, dropout=0.1, stochastic_depth=0.5)
AUGMENT = AugmentSettings(crop_padding=1, randaugment_ops=1, mixup=0.8, cutmix=1.0, erase=0.5, mixing_epochs=0.5)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def job(inputs, folder, addresses, **training):
    defaults = {
        "epochs": 4,
        "batch_size": 16,
        "warmup_epochs": 1,
        "learning_rate": 1e-2,
        "ema_epochs": 0.5,
        "checkpoint_seconds": 0,
        "workers": len(addresses),
    }
    return Job(
        workers=addresses,
        **inputs,
        serving_model_dir=str(folder / "model"),
        model_run_dir=str(folder / "run"),
        custom_config={
            "model": MODEL.model_dump_json(),
            "augment": AUGMENT.model_dump_json(),
            "training": TrainingSettings(**defaults | training).model_dump_json(),
            "checkpoints": str(folder / "checkpoints"),
            "mean": [128.0] * 3,
            "std": [64.0] * 3,
            "code": "",
        },
    )


def train(inputs, folder, launcher=None, count=2, **training):
    def make_job(addresses):
        return job(inputs, folder, addresses, **training)

    workers.train(make_job, count, folder / "logs", launcher or LocalWorkers())


def history(folder):
    rows = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")} for row in rows]


def assert_alike(folder, expected_folder):
    """Assert that two trainings of four epochs had equal results, within float32 rounding."""
    assert [row["epoch"] for row in history(folder)] == [1, 2, 3, 4]
    for row, expected in zip(history(folder), history(expected_folder), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    last, expected = (read_vit(path / "run" / "last.keras") for path in (folder, expected_folder))
    for weight, expected_weight in zip(last.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected_weight, atol=1e-4)


@pytest.fixture(scope="module")
def unbroken(inputs, tmp_path_factory):
    """Folder of a training with two workers that nothing interrupted."""
    folder = tmp_path_factory.mktemp("unbroken")
    train(inputs, folder)
    return folder


def worker(index):
    """Return the running process of a worker that this process has started."""
    [found] = [child for child in psutil.Process().children() if f"--index={index}" in child.cmdline()]
    return found


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_result_is_that_of_an_unbroken_training(
    inputs, unbroken, tmp_path, caplog
):
    def kill():
        while not list(tmp_path.glob("checkpoints/*/epoch-00002.npz")):
            time.sleep(0.01)
        worker(1).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with caplog.at_level("INFO"):
        train(inputs, tmp_path)
    killer.join()
    messages = [record.getMessage() for record in caplog.records]
    assert [message for message in messages if "start again" in message] == [
        "worker 1 of 2 was killed by SIGKILL; all workers start again and continue from the last checkpoint"
    ]
    assert sum("continuing from" in message for message in messages) == 1
    assert sum(message.startswith("epoch 1/4") for message in messages) == 1

    assert_alike(tmp_path, unbroken)


@pytest.mark.slow
def test_two_workers_train_the_same_weights_as_one(inputs, unbroken, tmp_path):
    train(inputs, tmp_path, count=1)
    assert_alike(tmp_path, unbroken)


@pytest.mark.slow
def test_a_training_continues_with_another_number_of_workers(inputs, unbroken, tmp_path, caplog):
    shutil.copytree(unbroken / "checkpoints", tmp_path / "checkpoints")
    [newest] = tmp_path.glob("checkpoints/*/epoch-00004.npz")
    newest.unlink()
    with caplog.at_level("INFO"):
        train(inputs, tmp_path, count=1)
    messages = [record.getMessage() for record in caplog.records]
    assert any(re.fullmatch("continuing from .*epoch-00003.npz", message) for message in messages)
    assert any(" on one CPU, " in message for message in messages)
    assert history(tmp_path)[:3] == history(unbroken)[:3] and len(history(tmp_path)) == 4


@pytest.mark.slow
def test_settings_that_do_not_fit_the_data_end_the_training_at_once(inputs, tmp_path, caplog):
    with pytest.raises(
        ValueError, match=r"worker \d of 2 failed: .*batch_size 128 is more than the 64 training images"
    ):
        train(inputs, tmp_path, batch_size=128)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert not psutil.Process().children()


# Starts the training of the job in argv[1] in a process of its own, which a test can kill.
PARENT = """
import sys
from pathlib import Path
from components.model import workers
from trainer.worker import read_job
job = read_job(Path(sys.argv[1]))
make_job = lambda addresses: job.model_copy(update={"workers": addresses})
workers.train(make_job, 2, Path(sys.argv[1]).parent / "logs", workers.LocalWorkers())
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(inputs, tmp_path, how):
    (tmp_path / "job.json").write_text(job(inputs, tmp_path, ["a:1", "b:2"], epochs=10_000).model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path / "job.json"], env=environment)
    while not list(tmp_path.glob("checkpoints/*/epoch-*.npz")):
        assert parent.poll() is None
        time.sleep(0.05)
    children = psutil.Process(parent.pid).children()
    assert len(children) == 2
    parent.send_signal(how)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


NO_INPUTS = {"transform_output": "", "schema_path": "", "train_files": [""], "eval_files": [""]}


class Scripts(LocalWorkers):
    """Sets of processes that run given scripts, instead of trainings."""

    def __init__(self, *sets):
        super().__init__()
        self.sets = list(sets)

    def start(self, folder, count):
        for index, script in enumerate(self.sets.pop(0)):
            with log_file(folder, index).open("ab") as output:
                command = [sys.executable, "-c", textwrap.dedent(script)]
                self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=output))


DONE = ""
DIES = "import os; os.kill(os.getpid(), 11)"
WAITS = "import time; time.sleep(600)"


def test_a_training_fails_after_the_last_restart(tmp_path):
    scripts = Scripts(*[[DIES, DIES]] * (RESTARTS + 1), [DONE, DONE])
    with pytest.raises(RuntimeError, match=r"worker \d of 2 was killed by SIGSEGV, after 3 restarts"):
        train(NO_INPUTS, tmp_path, scripts)
    assert scripts.sets == [[DONE, DONE]] and not psutil.Process().children()


def test_the_worker_that_failed_first_is_named_with_its_last_lines(tmp_path, caplog):
    loses_the_other = "import sys; sys.exit(1)"
    fails = "import sys, time; time.sleep(0.5); sys.exit(f'first line{chr(10)}the reason')"
    rejects = "import os, sys, time; time.sleep(0.5); print('the reason', file=sys.stderr, flush=True); os._exit(65)"
    with pytest.raises(ValueError, match="worker 1 of 2 failed: the reason"):
        train(NO_INPUTS, tmp_path, Scripts([loses_the_other, rejects]))
    caplog.clear()
    train(NO_INPUTS, tmp_path, Scripts([WAITS, fails], [DONE, DONE]))
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == ["worker 1 | first line", "worker 1 | the reason"]
    assert messages[2].startswith("worker 1 of 2 ended with exit code 1")


def test_progress_of_the_first_worker_is_logged_within_a_second(tmp_path, caplog):
    script = """
        import logging, time
        logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("tensorflow").info("about itself")
        logging.getLogger("trainer.train").info("at %s", time.time())
        logging.getLogger("trainer.checkpoint").warning("skipped")
        time.sleep(1.5)
    """
    with caplog.at_level("INFO"):
        train(NO_INPUTS, tmp_path, Scripts([script, script]))
    _, progress, warning = caplog.records
    assert progress.created - float(progress.getMessage().removeprefix("at ")) < 1
    assert (warning.levelname, warning.getMessage()) == ("WARNING", "skipped")


def test_each_worker_gets_an_equal_share_of_cores_and_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_gpus", lambda: ["0", "1", "4", "5"])
    local = LocalWorkers()
    try:
        local.start(tmp_path, 2)
        cores = [os.sched_getaffinity(process.pid) for process in local._processes]
        gpus = [psutil.Process(process.pid).environ()["CUDA_VISIBLE_DEVICES"] for process in local._processes]
    finally:
        local.stop()
    size = max(len(os.sched_getaffinity(0)) // 2, 1)
    assert [len(share) for share in cores] == [size, size]
    assert len(os.sched_getaffinity(0)) == 1 or not cores[0] & cores[1]
    assert gpus == ["0,1", "4,5"]
    with pytest.raises(ValueError, match=r"training.workers 5 is more than the 4 GPUs"):
        local.start(tmp_path, 5)

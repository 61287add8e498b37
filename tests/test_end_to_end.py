"""Whole runs through the command, as a person starts them."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def command(folder, *arguments):
    return [sys.executable, "-m", "pipeline.cli", *arguments], {
        "cwd": folder,
        "env": {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "VITPIPE_TRAINING__CHECKPOINT_SECONDS": "0",
            "XLA_FLAGS": "",
        },
        "text": True,
    }


def vitpipe(folder, *arguments):
    line, options = command(folder, *arguments)
    return subprocess.run(line, capture_output=True, **options)


def states(done):
    """Node and state, as the lines of a run show them."""
    words = [line.split() for line in done.stderr.splitlines() if line.endswith(" s") and not line.startswith(" ")]
    return {line[0]: line[1] for line in words}


def pushed(folder, name):
    serving = folder / "runs" / name / "serving"
    return sorted(entry.name for entry in serving.iterdir()) if serving.exists() else []


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A folder with the sample, one run that was killed in training, and one that went through."""
    folder = tmp_path_factory.mktemp("sample")
    prepared = vitpipe(folder, "data", "prepare", "sample", "--out", "data/sample")
    assert prepared.returncode == 0, prepared.stderr

    line, options = command(folder, "run", "-c", "sample")
    killed = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    for text in killed.stderr:
        if "epoch 3/" in text:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert killed.returncode == -signal.SIGKILL

    return folder, vitpipe(folder, "run", "-c", "sample")


def test_after_a_kill_the_same_command_ends_with_a_pushed_model(sample):
    folder, done = sample
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(folder, "sample") == ["1"]
    assert states(done)["ImportExampleGen"] == states(done)["Transform"] == "cached"  # of the killed run
    assert states(done)["Trainer"] == states(done)["Pusher"] == "complete"
    assert "pushed version 1 to runs/sample/serving/1" in done.stdout
    assert "blessed: accuracy 0.9" in done.stdout
    assert "goes on from" in done.stderr and "epoch 30/30" in done.stderr
    assert "epoch 2/" not in done.stderr  # of the killed run
    for noise in ("WARNING", "oneDNN", "absl", "Traceback"):
        assert noise not in done.stdout + done.stderr


def test_the_model_says_where_it_came_from(sample):
    folder, _ = sample
    record = json.loads((folder / "runs" / "sample" / "serving" / "1" / "model.json").read_text())
    assert (record["version"], record["classes"][:3]) == (1, ["zero", "one", "two"])
    assert record["accuracy"] > 0.9
    logs = folder / "runs" / "sample" / "logs" / record["run_id"]
    assert "code_version:" in (logs / "run.yaml").read_text()
    assert (logs / "Trainer.log").stat().st_size > 0
    with sqlite3.connect(folder / "runs" / "sample" / "metadata.db") as database:
        rows = database.execute(
            "select p.name, p.string_value from ContextProperty p join Context c on c.id = p.context_id"
            " where c.name = ?",
            [record["run_id"]],
        )
        facts = dict(rows.fetchall())
    assert json.loads(facts["settings"])["training"]["batch_size"] == 64
    assert facts["code_version"] and facts["data_digest"] and facts["trigger"] == "manual"


def test_predict_names_the_digits(sample):
    folder, _ = sample
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(20):
        image = Image.fromarray((digits.images[index] / 16 * 255).astype("uint8"))
        image.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    files = [f"{index}.png" for index in range(20)]
    done = vitpipe(folder, "predict", *files, "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    right = [answer["class"] == names[digits.target[index]] for index, answer in enumerate(answers)]
    assert np.mean(right) >= 0.8
    assert all(abs(sum(answer["probabilities"]) - 1) < 1e-5 for answer in answers)

    (folder / "broken.png").write_text("<html>")
    mixed = vitpipe(folder, "predict", "0.png", "broken.png")
    assert mixed.returncode == 3
    assert "not a PNG or JPEG" in mixed.stdout


def test_an_equal_run_trains_nothing_and_pushes_nothing(sample):
    folder, _ = sample
    done = vitpipe(folder, "run", "-c", "sample")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done)["Trainer"] == states(done)["Transform"] == "cached"
    assert "nothing trained" in done.stdout
    assert "nothing to push" in done.stdout
    assert pushed(folder, "sample") == ["1"]


def test_a_model_that_misses_a_bound_is_not_pushed(sample):
    folder, _ = sample
    for _ in range(2):  # the second time the verdict comes from the cache
        done = vitpipe(folder, "run", "-c", "sample", "--set", "gate.accuracy=1.0")
        assert done.returncode == 4, done.stdout + done.stderr
        assert "not blessed" in done.stdout
        assert "is below 1.0000" in done.stdout
        assert states(done)["Pusher"] == "skipped"
    assert states(done)["Evaluator"] == "cached"
    assert pushed(folder, "sample") == ["1"]


def test_one_run_at_a_time(sample):
    folder, _ = sample
    with filelock.FileLock(folder / "runs" / "sample" / ".lock"):
        done = vitpipe(folder, "run", "-c", "sample")
    assert done.returncode == 2
    assert "another run of sample is going on" in done.stderr


def test_on_a_terminal_the_libraries_stay_in_their_log(sample):
    """A real terminal, where Rich draws its spinner; and a node that is forced runs again."""
    folder, _ = sample
    line, options = command(folder, "run", "-c", "sample", "--force", "StatisticsGen")
    terminal, other_end = pty.openpty()
    options["env"] |= {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(line, stdin=other_end, stdout=other_end, stderr=other_end, **options)
    os.close(other_end)
    seen = b""
    with contextlib.suppress(OSError):  # how a terminal says that the process has gone
        while some := os.read(terminal, 65536):
            seen += some
    assert process.wait() == 0
    text = seen.decode()
    assert "nothing to push" in text
    assert re.search(r"StatisticsGen +complete", text)
    for noise in ("INFO", "absl", "WARNING"):
        assert noise not in text
    newest = max((folder / "runs" / "sample" / "logs").iterdir(), key=lambda path: path.name)
    assert "absl" in (newest / "StatisticsGen.log").read_text()


def test_bad_usage_is_said_before_anything_starts(tmp_path):
    for arguments, message in [
        (["run", "-c", "sample"], "no data in data/sample: make some with `vitpipe data prepare"),
        (["run", "-c", "smaple"], "did you mean sample?"),
        (["run", "--set", "training.epocs=3"], "did you mean training.epochs?"),
        (["predict", "nothing.png"], "nothing.png is not a file"),
        (["predict", str(ROOT / "README.md")], "no pushed model below runs"),
    ]:
        done = vitpipe(tmp_path, *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_dry_run_shows_settings_and_nodes_and_leaves_nothing(tmp_path):
    assert vitpipe(tmp_path, "data", "prepare", "sample", "--out", "data/sample").returncode == 0
    done = vitpipe(tmp_path, "run", "--dry-run", "--set", "training.epochs=7")
    assert done.returncode == 0, done.stderr
    assert "epochs: 7" in done.stdout and "Pusher" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_span_without_its_manifest_is_refused(tmp_path):
    assert vitpipe(tmp_path, "data", "prepare", "sample", "--out", "data/sample").returncode == 0
    (tmp_path / "data" / "sample" / "span-1" / "manifest.json").unlink()
    done = vitpipe(tmp_path, "run")
    assert done.returncode == 3
    assert "manifest.json" in done.stderr and "Traceback" not in done.stderr


def test_a_slice_of_the_real_cifar10(cifar10_archive, tmp_path):
    """40 training and 10 test images a class through the whole graph; too few to learn, so the gate is left open."""
    counts = {}
    with tarfile.open(cifar10_archive) as archive:
        for member in archive:
            split, _, rest = member.name.removeprefix("./").partition("/")
            name = rest.partition("/")[0]
            wanted = {"train": 40, "test": 10}.get(split, 0)
            if member.isfile() and counts.setdefault((split, name), 0) < wanted:
                counts[split, name] += 1
                target = tmp_path / "images" / split / name / Path(member.name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    assert sorted(counts.values()) == [10] * 10 + [40] * 10
    prepared = vitpipe(tmp_path, "data", "prepare", "cifar10", "--source", "images")
    assert prepared.returncode == 0, prepared.stderr

    done = vitpipe(
        tmp_path, "run", "-c", "cifar10-cpu", "--set", "gate.accuracy=0", "--set", "training.epochs=1",
        "--set", "training.batch_size=32", "--set", "model.depth=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(tmp_path, "cifar10-cpu") == ["1"]
    some = next((tmp_path / "images" / "test").rglob("*.jpg"))
    answer = json.loads(vitpipe(tmp_path, "predict", str(some), "--json").stdout)[0]
    assert Image.open(io.BytesIO(some.read_bytes())).size == (32, 32)
    assert answer["class"] in {name for _, name in counts}

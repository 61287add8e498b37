"""`vitpipe watch` with three spans, one after the other: a good one, one that drifted, and one with wrong labels."""

import json
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

from components.data.statistics.figures import read_figures
from tests.helpers.command import command, vitpipe, with_settings
from trainer.serving import read_vit

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = {
    "name": "digits",
    "data.dir": "data/digits",
    "model.depth": 2,
    "training.epochs": 25,
    "training.checkpoint_seconds": 0,
    "training.warm_start": "true",
    "gate.accuracy": 0.6,
    "gate.class_accuracy": 0,
    "gate.calibration": 1,
    "data_gate.conflicting_labels.stop": "null",  # shuffled labels contradict each other
}


def watch(*options):
    return ["watch", "-c", "sample", *with_settings(SETTINGS), *options]


class Watching:
    """Running `vitpipe watch`, with methods that wait for lines of its output."""

    def __init__(self, folder):
        line, options = command(folder, *watch("--every", 0.2, "--settle", 1))
        self.lines = []
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

    def until(self, text):
        for line in self._process.stdout:
            self.lines.append(line)
            if text in line:
                return "".join(self.lines)
        pytest.fail(f"it ended without {text!r}:\n" + "".join(self.lines))

    def end(self, by):
        self._process.send_signal(by)
        rest, _ = self._process.communicate(timeout=120)
        return self._process.returncode, rest


def land(folder, span, rows, dark=False, shuffled=False):
    """Write digits to an image folder with a folder for each class, and prepare it as a span. Spans share no digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = digits.target[rows]
    if shuffled:
        labels = np.random.default_rng(0).permutation(labels)
    source = folder / f"images-{span}"
    for number, (image, label) in enumerate(zip(digits.images[rows], labels, strict=True)):
        pixels = (image / 16 * (90 if dark else 255)).astype("uint8")
        path = source / str(label) / f"{span}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    done = vitpipe(folder, "data", "prepare", "images", "--source", source, "--out", "data/digits", "--span", span)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Folder in which a watcher has processed three spans, and the output for each of them."""
    folder, said = tmp_path_factory.mktemp("watch"), {}
    (folder / "data" / "digits").mkdir(parents=True)

    watching = Watching(folder)
    watching.until("waiting for another span in data/digits, checking every 0.2 s")
    land(folder, 1, slice(0, 900))
    watching.until("epoch 3/25")
    said["ended"] = watching.end(signal.SIGTERM)  # as when a machine is restarted

    watching = Watching(folder)
    said[1] = watching.until("waiting for another span")
    said["another look"] = vitpipe(folder, *watch("--once"))  # while the first watcher is still running
    land(folder, 2, slice(900, 1200), dark=True)
    said[2] = watching.until("waiting for another span")
    said["interrupted"] = watching.end(signal.SIGINT)

    land(folder, 3, slice(1200, None), shuffled=True)
    said[3] = vitpipe(folder, *watch("--once"))
    return folder, said


def test_a_good_span_is_pushed_by_a_training_that_continued_after_sigterm(story):
    _, said = story
    code, rest = said["ended"]
    assert code == 0 and rest.endswith("stopped\n") and "Traceback" not in rest
    assert "continuing from" in said[1] and "epoch 25/25" in said[1] and "epoch 2/" not in said[1]
    assert "span 1 appeared; no span was trained on before: a run starts" in said[1]
    assert "pushed version 1 to runs/digits/serving/1" in said[1]
    # A warm start would now begin from another model, but that is no reason to train again.
    again = said["another look"]
    assert again.returncode == 0 and "on span 1 ended: done" in again.stderr, again.stderr


def test_a_span_that_drifted_is_stopped_by_the_data_gate(story):
    _, said = story
    assert "span 2 appeared; the last training was on span 1: a run starts" in said[2]
    assert "data refused, nothing trained:" in said[2] and "drift_brightness: brightness changed by" in said[2]
    assert said["interrupted"][0] == 0


def test_a_span_that_makes_a_worse_model_is_stopped_by_the_gate(story):
    _, said = story
    assert said[3].returncode == 4, said[3].stdout + said[3].stderr
    assert "span 3 appeared; the last training was on span 1: a run starts" in said[3].stderr
    assert "not blessed, nothing pushed:" in said[3].stdout
    assert "accuracy against the serving model -0." in said[3].stdout


def test_the_first_model_serves_and_no_span_is_trained_on_again(story):
    folder, _ = story
    again = vitpipe(folder, *watch("--once"))
    assert again.returncode == 0 and "nothing to do: run" in again.stderr, again.stderr
    assert "on span 3 ended: not blessed" in again.stderr
    [serving] = (folder / "runs" / "digits" / "serving").iterdir()
    record = json.loads((serving / "model.json").read_text())
    assert (record["version"], record["span"]) == (1, 1)


def test_each_run_records_what_started_it_and_why(story):
    folder, _ = story
    runs = json.loads(vitpipe(folder, "runs", "list", "--json").stdout)
    assert [(run["span"], run["state"], run["trigger"], run["pushed"]) for run in runs] == [
        (3, "not blessed", "span", None),
        (2, "data refused", "span", None),
        (1, "done", "span", "1"),
        (1, "died", "span", None),
    ]
    # After SIGTERM the Trainer still recorded that it failed.
    assert "Trainer\tfailed" in vitpipe(folder, "runs", "show", runs[-1]["run"]).stdout
    shown = vitpipe(folder, "runs", "show", "last").stdout
    assert "trigger: span" in shown and "reason: span 3 appeared; the last training was on span 1" in shown
    # The training was a warm start from the serving model.
    [trainer] = [line for line in shown.splitlines() if line.startswith("Trainer\t")]
    assert "base_model:" in trainer


def test_a_warm_start_normalises_pixels_as_its_weights_learned_them(story):
    folder, _ = story
    root = folder / "runs" / "digits" / "root"
    first, warm = (read_vit(file).config for file in root.glob("Trainer/model/*/Format-Serving/assets.extra/vit.keras"))
    assert first["mean"] == warm["mean"] and first["std"] == warm["std"]
    data = {str(read_figures(folder).splits["train"].mean) for folder in root.glob("ImageStatistics/statistics/*")}
    assert len(data) == 3  # each span has its own moments

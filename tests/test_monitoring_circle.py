"""The whole circle on the sample: push, traffic that gets darker, alert, labelled span, training, better, pushed."""

import csv
import io
import json
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.data.ingest import tfrecord
from components.data.ingest.source import no_progress
from components.data.ingest.sources.sample import open_source
from tests.helpers import model_server
from tests.helpers.command import pushed, vitpipe, with_settings
from tests.helpers.traffic import json_line
from tests.helpers.webhook import webhook
from vitpipe.model_server import Server, ask

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

# The drift is what the model shall learn.
ACCEPTED = {"data.window": 2, "data_gate.drift_brightness.stop": "null", "data_gate.drift_colour.stop": "null"}


class Traffic(NamedTuple):
    """Images that clients send, which the model was not trained on, and their classes."""

    images: list[bytes]
    classes: list[str]


def unseen_digits(folder):
    """Return the digits of the sample that are in no split of the span."""
    seen = {
        example.id
        for split in ("train", "val", "test")
        for example in tfrecord.read_split(folder / "data" / "sample" / "span-1" / split)
    }
    records = [one for one in open_source(None, folder, no_progress).records() if one.id not in seen]
    return Traffic([one.image for one in records], [one.class_name for one in records])


def darken(image):
    pixels = np.asarray(Image.open(io.BytesIO(image))) * 0.3
    out = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(out, "PNG")
    return out.getvalue()


def ask_server(folder, version, images):
    """Return the answers of a model server that serves a pushed version."""
    model = tf.saved_model.load(str(folder / "runs" / "sample" / "serving" / version))
    with model_server.rest(model_server.Served(model.signatures)) as address:
        return [*ask(Server(address, "vit"), images)]


def accuracy(answers, classes):
    return np.mean([answer.name == name for answer, name in zip(answers, classes, strict=True)])


def write_log(file, images, answers):
    rows = zip(images, answers, strict=True)
    file.write_text(
        "".join(json_line(image, answer.probabilities, id=str(n)) for n, (image, answer) in enumerate(rows))
    )


@pytest.fixture(scope="module")
def circle(tmp_path_factory):
    """Folder in which the circle was run, and what its commands printed."""
    folder, done = tmp_path_factory.mktemp("circle"), {}

    def run(name, *arguments, **environment):
        done[name] = vitpipe(folder, *arguments, **environment)
        return done[name]

    run("prepare", "data", "prepare", "sample", "--per-class", 100, "--out", "data/sample")
    assert run("first", "run", "-c", "sample").returncode == 0, done["first"].stdout + done["first"].stderr

    unseen = unseen_digits(folder)
    day = Traffic(unseen.images[::2], unseen.classes[::2])
    night = Traffic([darken(image) for image in day.images], day.classes)
    later = Traffic([darken(image) for image in unseen.images[1::2]], unseen.classes[1::2])  # never logged
    for name, sent in ("day", day), ("night", night):
        write_log(folder / f"{name}.jsonl", sent.images, ask_server(folder, "1", sent.images))
    watch = ["watch", "-c", "sample", "--once", "--on-drift", *with_settings(ACCEPTED)]

    run("day", "monitor", "sample", "--logs", "day.jsonl")
    with webhook() as hook:
        sample = ["--sample", "to-label", "--sample-images", 250]
        run("night", "monitor", "sample", "--logs", "night.jsonl", *sample, VITPIPE_MONITOR__WEBHOOK=hook.address)
    done["messages"] = hook.messages
    with (folder / "to-label" / "labels.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    with (folder / "to-label" / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "label": night.classes[int(row["id"])]} for row in rows)
    run("span", "data", "prepare", "images", "--source", "to-label/labels.csv", "--out", "data/sample")
    run("watch", *watch)
    run("again", *watch)
    done["accuracy"] = [accuracy(ask_server(folder, version, later.images), later.classes) for version in ("1", "2")]
    done["clean"] = [accuracy(ask_server(folder, version, day.images), day.classes) for version in ("1", "2")]
    return folder, done


def test_only_the_darker_traffic_raises_an_alert(circle):
    _, done = circle
    assert done["day"].returncode == 0, done["day"].stderr
    assert done["night"].returncode == 3 and "alert in window 1 of version 1: drift_brightness" in done["night"].stderr
    [message] = done["messages"]
    assert message["text"].startswith("sample: ") and message["version"] == 1


def test_the_alert_starts_a_training_whose_model_is_pushed(circle):
    folder, done = circle
    assert done["watch"].returncode == 0, done["watch"].stdout + done["watch"].stderr
    assert pushed(folder, "sample") == ["1", "2"]
    [run, first] = json.loads(vitpipe(folder, "runs", "list", "--json").stdout)
    assert (run["span"], run["trigger"], run["pushed"]) == (2, "drift", "2") and first["trigger"] == "manual"
    shown = vitpipe(folder, "runs", "show", "last").stdout
    assert "trigger: drift" in shown and "reason: window 1 of version 1: " in shown and "span 2 appeared" in shown
    # The span is done, so the same alert starts no second training.
    assert done["again"].returncode == 0 and "nothing to do" in done["again"].stderr


def test_the_new_model_is_better_on_dark_images_that_nobody_labelled(circle):
    _, done = circle
    before, after = done["accuracy"]
    assert after > before + 0.05, f"on clean images {done['clean']}"


def test_the_lineage_of_the_new_model_names_both_spans_and_the_report_the_first_model(circle):
    folder, _ = circle
    up = vitpipe(folder, "lineage", "v2", "--pipeline", "sample").stdout
    assert "span-1" in up and "span-2" in up
    assert "MonitorReport" in vitpipe(folder, "lineage", "v1", "--down", "--pipeline", "sample").stdout

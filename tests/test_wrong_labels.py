"""Test of the way from wrong labels to corrected ones, with the commands that a user calls."""

import csv
import json
import random

import pytest

from components.data.ingest import manifest, tfrecord
from components.data.ingest.source import SPLITS
from components.errors import Exit
from tests.helpers.command import prepare_sample, states, vitpipe, with_settings


def read_labels(span):
    """Return the class of each image of a span by the number of its digit."""
    names = manifest.read(span).class_names
    return {
        int("".join(filter(str.isdecimal, example.id.decode()))): names[example.label]
        for split in SPLITS
        for example in tfrecord.read_split(span / split)
    }


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_wrong_labels_stop_a_run_and_are_corrected_by_decisions(tmp_path):
    prepare_sample(tmp_path)
    sample = tmp_path / "data" / "sample" / "span-1"
    true = read_labels(sample)
    names = manifest.read(sample).class_names
    chosen = random.Random(0).sample(sorted(true), 90)
    wrong = {id: names[(names.index(true[id]) + 1 + place % 9) % 10] for place, id in enumerate(chosen)}
    for split in SPLITS:
        for example in tfrecord.read_split(sample / split):
            number = int(example.id.decode().removeprefix("digits:"))
            path = tmp_path / "digits" / (true | wrong)[number]
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{number}.png").write_bytes(example.image)

    prepare = ["data", "prepare", "images", "--source", "digits", "--out", "data/digits"]
    assert vitpipe(tmp_path, *prepare).returncode == 0
    settings = {"label_check.epochs": 12, "label_check.folds": 2, "data_gate.wrong_labels.stop": 0.02}
    refused = vitpipe(tmp_path, "run", "-c", "sample", "--data", "data/digits", *with_settings(settings))
    assert refused.returncode == Exit.DATA_REFUSED, refused.stderr
    assert "wrong_labels" in refused.stdout and "vitpipe data suspects last" in refused.stdout
    assert (states(refused)["LabelCheck"], states(refused)["Trainer"]) == ("complete", "skipped")

    listed = vitpipe(tmp_path, "data", "suspects", "last", "--limit", "0", "--json")
    found = json.loads(listed.stdout)
    suspects = {suspect["id"]: suspect for suspect in found["suspects"]}
    caught = [f"{label}/{number}.png" for number, label in wrong.items() if f"{label}/{number}.png" in suspects]
    assert found["figures"]["images"] == 1797 and found["figures"]["wrong"] > 0.02
    assert len(caught) > 70 and len(suspects) < 250
    page = (tmp_path / found["page"]).read_text()
    assert page.count("<figure ") == min(len(suspects), 300) and f'data-id="{caught[0]}"' in page
    table = vitpipe(tmp_path, "data", "suspects", "last", "--limit", "3")
    assert [line.split("\t")[1] for line in table.stdout.splitlines()] == [*suspects][:3]

    decisions = [(id, "relabel", true[int(id.split("/")[1].removesuffix(".png"))], "Ada") for id in caught]
    with (tmp_path / "decisions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "verdict", "label", "by"), *decisions])
    assert vitpipe(tmp_path, *prepare, "--decisions", "decisions.csv").returncode == 0
    corrected = tmp_path / "data" / "digits" / "span-2"
    decided = manifest.read(corrected).recipe.decisions
    assert (decided.relabel, decided.by) == (len(caught), ("Ada",))
    assert {number for number, label in read_labels(corrected).items() if label != true[number]} == {
        number for number, label in wrong.items() if f"{label}/{number}.png" not in caught
    }

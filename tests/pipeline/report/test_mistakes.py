"""Attention maps of a small exported model in the report of its run."""

import base64
import io
import re
import shutil
from datetime import UTC, datetime

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.drawing import attention_maps
from pipeline.metadata.records import Artifact
from pipeline.report.mistakes import explain_mistakes
from pipeline.report.model import Mistake, Picture, Report
from pipeline.report.page import render
from tests.helpers.spans import encoded, picture
from trainer import explain, serving
from trainer.vit import ViT

CLASSES = ["cat", "dog", "fox"]
IMAGES = [encoded(picture(seed, 20)) for seed in range(3)]


def artifact(folder):
    return Artifact(1, "Model", str(folder), "live", "model", 0, 0, {})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Model artifact as a Trainer writes it. Large random weights make its attention uneven."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("model")
    vit = ViT(image_size=8, patch_size=4, classes=3, depth=2, width=8, heads=2)
    for weight in vit.weights:
        if "kernel" in weight.path:
            weight.assign(keras.random.normal(weight.shape, seed=1))
    serving.export(vit, CLASSES, str(folder / "Format-Serving"))
    return artifact(folder)


def report(**of_mistakes):
    return Report(
        run="run-1",
        pipeline="x",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=1,
        state="done",
        verdict=[],
        facts={},
        settings={},
        data=None,
        samples={},
        history=[],
        judgement=None,
        override=None,
        calibration=[],
        serving=[],
        nodes=[],
        lineage_of="",
        lineage="",
        **of_mistakes,
    )


def mistakes(of_each):
    return [
        Mistake(
            picture=Picture(id=f"{place}.png", source=""),
            label="cat",
            answer="dog",
            confidence=0.9,
            explained=one,
        )
        for place, one in enumerate(of_each)
    ]


def pixels_of(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))))


def test_maps_are_those_of_the_signature_explain(model):
    found, why = explain_mistakes(model, CLASSES, IMAGES)
    assert why == "" and len(found) == 3
    loaded = tf.saved_model.load(f"{model.uri}/Format-Serving")
    attention = loaded.signatures["explain"](image_bytes=tf.constant(IMAGES))["attention"].numpy()
    expected = {
        "rollout, blocks 1 to 2": explain.patch_attention(explain.rollout(attention)[:, -1]),
        "block 2, mean of heads": explain.patch_attention(attention[:, -1].mean(1)),
    }
    for place, one in enumerate(found):
        assert one.grid == 2 and pixels_of(one.source).shape == (8, 8, 3)
        assert [of.name for of in one.maps] == list(expected)
        for of, patches in zip(one.maps, (maps[place] for maps in expected.values()), strict=True):
            assert of.most == pytest.approx(patches.max()) and patches.argmax() == 2 * (of.row - 1) + of.column - 1
            assert of.entropy == pytest.approx(explain.entropy(patches), abs=1e-5)
            assert of.source == attention_maps.data_uri(attention_maps.colour_map(patches, 8))
    assert len({of.source for one in found for of in one.maps}) == 6


def test_a_run_without_its_model_gives_the_reason(model, tmp_path):
    gone = artifact(tmp_path / "gone")
    changed = tmp_path / "changed"
    shutil.copytree(model.uri, changed)
    (changed / "Format-Serving" / "saved_model.pb").write_bytes(b"no model")
    assert explain_mistakes(None, CLASSES, IMAGES) == (
        [],
        "There are no attention maps of the mistakes: the run has no model.",
    )
    for broken, why in (gone, f"no longer exists ({gone.uri})"), (artifact(changed), "does not load as a model"):
        found, line = explain_mistakes(broken, CLASSES, IMAGES)
        assert found == [] and why in line and "\n" not in line


def test_the_page_shows_the_maps_once_each_and_the_rest_without(model, tmp_path):
    found, _ = explain_mistakes(model, CLASSES, IMAGES[:2])
    html = render(report(mistakes=mistakes([*found, None])), tmp_path)
    assert all(html.count(of.source) == 1 for one in found for of in one.maps)
    assert all(html.count(f"--image: url({one.source})") == 1 for one in found)
    assert html.count('<div class="explained">') == 1 and "The next 1</h3>" in html and "even: 1/4" in html
    assert re.search(
        r"highest 0\.\d{3}, [0-4]\.\d times even attention, at row [12], column [12]; entropy [01]\.\d\d bits", html
    )


def test_a_page_without_maps_gives_the_reason_and_shows_the_mistakes(tmp_path):
    html = render(report(mistakes=mistakes([None]), unexplained="There are no maps."), tmp_path)
    assert "<p>There are no maps.</p>" in html and "dog, 90.0%" in html
    assert '<div class="explained">' not in html and 'class="legend"' not in html


def test_a_report_of_a_version_without_maps_can_be_read_and_shown(tmp_path):
    written = report(mistakes=mistakes([None]))
    before = {**written.model_dump(mode="json")}
    del before["unexplained"], before["mistakes"][0]["explained"]
    assert Report.model_validate(before) == written
    assert "no attention maps" not in render(written, tmp_path)

"""The command `vitpipe explain`, on a small pushed model."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from PIL import Image
from typer.testing import CliRunner

from components.data.ingest import tfrecord
from components.errors import DataRefused, UsageError
from components.model.serving_folder import ModelId, ModelRecord, push
from tests.helpers.spans import encoded, picture, write_span
from trainer import serving
from trainer.vit import ViT
from vitpipe.cli import app

ROOT = Path(__file__).parents[3]
CLASSES = ["cat", "dog", "fox"]
COLUMNS = ["head 1", "head 2", "mean", "rollout"]


def vit(**settings):
    keras.utils.set_random_seed(0)
    model = ViT(**{"image_size": 8, "patch_size": 4, "classes": 3, "depth": 2, "width": 8, "heads": 2} | settings)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    return model


def record_run(file, name, settings):
    """Record a run with its settings in ML Metadata."""
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(file)
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = MetadataStore(config)
    context = mlmd.Context(type_id=store.put_context_type(mlmd.ContextType(name="pipeline_run")), name=name)
    context.custom_properties["settings"].string_value = json.dumps(settings)
    store.put_contexts([context])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a pushed model and the data of its gate: 12 test images, one of which does not decode."""
    folder = tmp_path_factory.mktemp("explain")
    rows = [tfrecord.example(encoded(picture(i, 8)), i % 3, f"test/{i}.png".encode()) for i in range(11)]
    broken = tfrecord.example(b"\x89PNG\r\n\x1a\nbroken", 0, b"test/broken.png")
    train = [tfrecord.example(encoded(picture(50, 8)), 0, b"train/0.png")]
    write_span(folder / "data", 1, {"train": train, "test": [broken, *rows]})
    serving.export(vit(), CLASSES, str(folder / "model"))
    record = ModelRecord(
        version=1,
        pushed_at=datetime(2026, 1, 1, tzinfo=UTC),
        run_id="run-1",
        span=1,
        data_digest="d",
        model=ModelId(uri="/1", created_ms=1),
        code_version="c",
        settings_digest="s",
        metrics={"accuracy": 0.9},
        signatures=["explain"],
        classes=CLASSES,
    )
    push(folder / "model", folder / "runs" / "x" / "serving", record)
    record_run(folder / "runs" / "x" / "metadata.db", "run-1", {"data": {"dir": "data", "span": 4, "gate_span": 1}})
    (folder / "a.png").write_bytes(encoded(picture(100, 20)))
    (folder / "broken.png").write_bytes(b"<html>no image</html>")
    vit(pool="mean", conv_stem=True).save(folder / "mean.keras")
    return folder


@pytest.fixture
def explain(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return lambda *arguments: CliRunner().invoke(app, ["explain", *arguments])


def done(result):
    assert result.exception is None, result.exception
    return result


def embedded(page):
    """Return the data that is embedded in an image page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def assert_offline(page):
    """Assert that a page loads nothing from other addresses. Scripts are not searched: plotly's contains addresses."""
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.S)
    for address in re.findall(r'(?:src|href)="([^"]*)"', markup):
        assert address.startswith(("data:image/png;base64,", "#"))
    assert "<img" in markup and not re.search(r"@import|url\(", markup)


def test_images_by_file_and_by_id_on_one_page(explain, folder, tmp_path):
    result = done(explain("a.png", "test/3.png", "train/0.png", "--out", str(tmp_path)))
    *rows, page = result.stdout.splitlines()
    assert [row.split("\t")[0] for row in rows] == ["a.png", "test/3.png", "train/0.png"]
    assert page == str(tmp_path / "explain.html")
    text = Path(page).read_text()
    assert_offline(text)
    assert "http" not in text and "2 x 2 patches of 4 pixels" in text and "CLS token" in text
    images = embedded(text)
    logits, attention = vit().explain(np.stack([picture(3, 8)]))
    assert images[1]["class"] == CLASSES[int(np.argmax(logits))] == rows[1].split("\t")[1]
    np.testing.assert_allclose(list(images[1]["probabilities"].values()), tf.nn.softmax(logits)[0], atol=1e-5)
    assert images[1]["columns"] == COLUMNS
    np.testing.assert_allclose(np.array(images[1]["patches"])[:, :2], np.asarray(attention)[0, :, :, 0, 1:], atol=1e-4)
    assert all(uri.startswith("data:image/png;base64,") for block in images[0]["maps"] for uri in block)
    folders = sorted(folder.name for folder in tmp_path.iterdir() if folder.is_dir())
    assert folders == ["1-a", "2-3", "3-0"]
    wanted = {f"block-{block:02d}-{name.replace(' ', '-')}.png" for block in (1, 2) for name in COLUMNS}
    assert {file.name for file in (tmp_path / "2-3").iterdir()} == wanted | {"image.png", "patches.png"}
    for file in (tmp_path / "2-3").iterdir():
        with Image.open(file) as drawing:
            assert drawing.size == (256, 256)


def test_figures_of_an_image_as_json(explain, tmp_path):
    answer = json.loads(done(explain("a.png", "--out", str(tmp_path), "--json")).stdout)
    assert answer["model"] == "runs/x/serving/1" and answer["page"] == str(tmp_path / "explain.html")
    [image] = answer["images"]
    np.testing.assert_allclose(sum(image["probabilities"].values()), 1, atol=1e-5)
    np.testing.assert_allclose(np.sum(image["patches"], -1) + image["to_itself"], 1, atol=1e-5)
    assert np.shape(image["entropy"]) == np.shape(image["distance"]) == (2, 4)
    assert np.min(image["entropy"]) >= 0 and np.max(image["entropy"]) <= 2


def test_a_broken_image_is_reported_and_the_others_are_explained(explain, tmp_path):
    result = explain("broken.png", "a.png", "--out", str(tmp_path))
    assert result.exit_code == 3
    assert "broken.png\tnot a PNG or JPEG image" in result.stdout
    assert [image["image"] for image in embedded((tmp_path / "explain.html").read_text())] == ["a.png"]
    result = explain("broken.png", "--out", str(tmp_path / "none"))
    assert result.exit_code == 3 and not (tmp_path / "none").exists()


def test_problems_of_an_image_are_printed(explain, folder, tmp_path):
    (folder / "flat.jpg").write_bytes(encoded(np.full((20, 20, 3), 90, "uint8"), "JPEG"))
    result = explain("flat.jpg", "broken.png", "--out", str(tmp_path), "--json")
    flat, broken = json.loads(result.stdout)["images"]
    assert (flat["valid"], flat["reason"], flat["remarks"]) == (True, "", ["one_colour"])
    assert (broken["valid"], broken["reason"], broken["remarks"]) == (False, "not a PNG or JPEG image", [])
    assert "flat.jpg: every pixel has the same colour" in result.stderr


def test_the_page_about_the_model_uses_the_test_images_of_its_gate(explain, tmp_path):
    answer = json.loads(done(explain("--images", "10", "--curves", "4", "--out", str(tmp_path), "--json")).stdout)
    assert answer["data"] == "data/span-1" and answer["images"] == 9  # one of the first ten does not decode
    assert {**json.loads((tmp_path / "model.json").read_text()), "page": answer["page"]} == answer
    assert np.shape(answer["entropy"]) == np.shape(answer["to_itself"]) == (2, 4)
    assert np.min(answer["distance"]) > 0 and np.max(answer["distance"]) < 4 * 2**0.5
    assert answer["removal"]["images"] == 4
    for curve in answer["removal"]["curves"]:
        areas = [curve["rollout_area"], curve["random_area"], *curve["random_areas"]]
        assert min(areas) > 0 and max(areas) < 1
        ends = curve["rollout"][:: len(curve["rollout"]) - 1]
        np.testing.assert_allclose(ends, curve["random"][:: len(curve["random"]) - 1], atol=1e-6)
    page = (tmp_path / "model.html").read_text()
    assert_offline(page)
    assert "Deletion" in page and "mean colour of these images" in page
    assert {"positions.png", "filters.png"} <= {file.name for file in tmp_path.iterdir()}


def test_the_curves_of_rollout_are_printed_and_can_be_left_out(explain, tmp_path):
    lines = done(explain("--curves", "3", "--out", str(tmp_path))).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["deletion", "insertion"]
    assert lines[2] == str(tmp_path / "model.html")
    result = done(explain("--curves", "0", "--out", str(tmp_path)))
    assert result.stdout == f"{tmp_path / 'model.html'}\n"
    assert "Are the maps faithful?" not in (tmp_path / "model.html").read_text()


def test_the_keras_model_of_a_training_and_the_pushed_model_have_the_same_explanation(explain, folder, tmp_path):
    last = tmp_path / "model_run" / "last.keras"
    last.parent.mkdir()
    shutil.copy(folder / "model" / serving.KERAS_MODEL, last)
    both = [
        json.loads(done(explain("a.png", *more, "--out", str(tmp_path), "--json")).stdout)["images"][0]
        for more in ([], ["--model", str(last.parent), "--data", "data"])
    ]
    assert both[0]["class"] == both[1]["class"]
    for figure in ("patches", "entropy", "distance"):
        np.testing.assert_allclose(both[0][figure], both[1][figure], atol=1e-5)


def test_the_page_of_a_model_without_cls_token_and_with_a_conv_stem(explain, tmp_path):
    done(explain("a.png", "--model", "mean.keras", "--out", str(tmp_path)))
    page = (tmp_path / "explain.html").read_text()
    assert "has no CLS token" in page and 'id="to_itself"' not in page
    [image] = embedded(page)
    assert image["class"] in ("0", "1", "2")  # the model does not know the names of its classes
    np.testing.assert_allclose(np.sum(image["patches"], -1), 1, atol=1e-3)
    arguments = ["--model", "mean.keras", "--data", "data/span-1", "--curves", "2", "--out", str(tmp_path), "--json"]
    assert json.loads(done(explain(*arguments)).stdout)["to_itself"] is None
    assert "several convolutions" in (tmp_path / "model.html").read_text()
    assert not (tmp_path / "filters.png").exists()


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["--runs", "nowhere"], UsageError, "no pushed model below nowhere"),
        (["a.png", "--model", "data"], UsageError, "data holds no SavedModel"),
        (["a.png", "--model", "other"], UsageError, "other has no model.json, .*--trust-model"),
        (["a.png", "--model", "other", "--trust-model"], DataRefused, "other does not load as a model with the signat"),
        (["a.png", "--model", "bad.keras"], DataRefused, "bad.keras cannot be read as a Keras model"),
        (["--model", "nowhere"], UsageError, "nowhere holds no SavedModel"),
        (["--model", "checkpoints"], UsageError, "which holds weights but no model: name the last.keras"),
        (["--model", "mean.keras"], UsageError, "mean.keras has no model.json.*--data"),
        (["test/99.png"], UsageError, "test/99.png: not a file, and not the id of an example in data/span-1"),
        (["a" * 300], UsageError, r"aaa cannot be read \(File name too long\): name another"),
        (["b.png", "--model", "mean.keras"], UsageError, "b.png is not a file, and cannot be looked up"),
        (["a.png", "--images", "5"], UsageError, "--images and --curves are for the page about the model"),
        (["--data", "runs"], UsageError, "no data in runs"),
        (["a.png", "--out", "a.png"], UsageError, "a.png cannot be written"),
        (["--data", "two"], UsageError, "has other classes than two/span-1"),
    ],
)
def test_an_error_names_the_problem_and_the_fix(explain, folder, arguments, kind, words):
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / "saved_model.pb").write_bytes(b"no graph")
    (folder / "bad.keras").write_bytes(b"no archive")
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "epoch-00001.npz").write_bytes(b"")
    example = tfrecord.example(encoded(picture(1, 8)), 0, b"0")
    write_span(folder / "two", 1, {"test": [example]}, ("dog", "cat", "fox"))
    result = explain(*arguments)
    assert isinstance(result.exception, kind), result.exception
    assert re.search(words, str(result.exception))


def test_a_model_that_was_changed_after_its_push_is_rejected(explain, folder, tmp_path):
    shutil.copytree(folder / "runs" / "x" / "serving" / "1", tmp_path / "1")
    with (tmp_path / "1" / "saved_model.pb").open("ab") as file:
        file.write(b"more")
    result = explain("a.png", "--model", str(tmp_path / "1"))
    assert isinstance(result.exception, DataRefused) and "not the model that was pushed" in str(result.exception)


def test_importing_the_command_imports_no_heavy_library():
    heavy = "{'tensorflow', 'keras', 'numpy', 'tfx'}"
    script = f"import sys, vitpipe.cli.explain; print({heavy} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.browser
def test_the_page_can_be_navigated_by_blocks_and_heads(explain, chromium, tmp_path):
    done(explain("a.png", "test/3.png", "--out", str(tmp_path)))
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page_errors = []
    page.on("pageerror", lambda error: page_errors.append(str(error)))
    page.goto((tmp_path / "explain.html").as_uri())
    images = embedded((tmp_path / "explain.html").read_text())

    def position():
        return page.inner_text("#caption").split(":")[0], page.get_attribute("#map", "src")

    assert position() == ("block 2, rollout", images[0]["maps"][1][3])
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert position() == ("block 1, head 1", images[0]["maps"][0][0])
    page.keyboard.press("n")
    assert position() == ("block 1, head 1", images[1]["maps"][0][0])
    page.click("button[aria-label='block 2, mean']")
    assert position() == ("block 2, mean", images[1]["maps"][1][2])
    assert page.get_attribute("#choices [aria-pressed=true]", "aria-label") == "block 2, mean"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "block 2, mean"
    assert page.inner_text("#answer .first") == images[1]["class"]
    side = page.locator("#large").bounding_box()["width"]
    page.hover("#large", position={"x": 0.9 * side, "y": 0.1 * side})
    value = images[1]["patches"][1][2][1]
    assert page.inner_text("#caption").endswith(
        f"here {value:.4f}, {4 * value:.1f} times even attention, at row 1, column 2"
    )
    lines = page.locator(".lines-of-patches").first
    assert lines.is_visible()
    page.keyboard.press("g")
    assert not lines.is_visible()
    context.close()
    assert page_errors == []

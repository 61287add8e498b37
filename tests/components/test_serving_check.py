import shutil

import keras
import pytest
import tensorflow as tf

from components.ingest import tfrecord
from components.serving_bounds import ServingCheckSettings
from components.serving_check import check
from tests.spans import encoded, picture
from trainer import serving
from trainer.vit import ViT

RECORDS = [tfrecord.example(encoded(picture(n), "JPEG" if n % 2 else "PNG"), 0, b"%d" % n) for n in range(6)]


def export(folder, seed=1):
    model = ViT(image_size=8, patch_size=4, classes=3, depth=1, width=8, heads=2)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=seed))
    serving.export(model, ["cat", "dog", "ship"], 8, str(folder))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("check") / "model")


@pytest.fixture
def model(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


def failed(model, **bounds):
    return {one.name: str(one) for one in check(str(model), RECORDS, ServingCheckSettings(**bounds)) if not one.passed}


def test_a_good_model_keeps_every_bound_whatever_is_thrown_at_it(model):
    checks = check(str(model), RECORDS, ServingCheckSettings())
    assert all(one.passed for one in checks), checks
    assert len(checks) == 8 and next(one.value for one in checks if one.name == "latency in ms") > 0


def test_bounds_of_time_and_memory(model):
    missed = failed(model, latency_ms=0.001, memory_gib=0.01)
    assert missed.keys() == {"latency in ms", "memory in GiB"}
    assert "is above 0.0010" in missed["latency in ms"]


def test_answers_that_are_not_those_of_the_trained_model(model, tmp_path):
    other = export(tmp_path / "other", seed=2)
    shutil.copy(other / serving.KERAS_MODEL, model / serving.KERAS_MODEL)
    assert "difference from the trained model" in failed(model)


def test_a_model_without_a_signature_is_said(model, tmp_path):
    loaded = tf.saved_model.load(str(model))
    kept = {name: loaded.signatures[name] for name in ("serving_default", "serving_bytes", "serving_images")}
    tf.saved_model.save(loaded, str(tmp_path / "less"), signatures=kept)
    shutil.copytree(model / "assets.extra", tmp_path / "less" / "assets.extra")
    assert failed(tmp_path / "less")["signatures missing"] == "signatures missing 1.0000 is above 0.0000 (explain)"


def test_a_model_that_does_not_load_is_said(model):
    (model / "saved_model.pb").write_bytes(b"no graph")
    [line] = failed(model).values()
    assert line.startswith("loads and answers") and "exit code 1" in line

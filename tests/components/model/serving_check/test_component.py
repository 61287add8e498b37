import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.data.ingest import tfrecord
from components.model.serving_check.bounds import ServingCheckSettings
from components.model.serving_check.component import check
from tests.helpers.spans import encoded, picture
from trainer import serving
from trainer.framing import Framing
from trainer.preprocessing import decode_batch
from trainer.vit import ViT

NAMES = ["cat", "dog", "ship"]
RECORDS = [tfrecord.example(encoded(picture(n), "JPEG" if n % 2 else "PNG"), 0, b"%d" % n) for n in range(6)]


def export(folder, seed=1, names=NAMES, scale=1.0):
    model = ViT(image_size=8, patch_size=4, classes=3, depth=1, width=8, heads=2)
    model.head.kernel.assign(scale * keras.random.normal(model.head.kernel.shape, seed=seed))
    serving.export(model, names, str(folder))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("check") / "model")


@pytest.fixture
def model(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


def failed(model, **bounds):
    return {
        result.name: str(result)
        for result in check(str(model), RECORDS, NAMES, ServingCheckSettings(**bounds))
        if not result.passed
    }


def test_a_good_model_passes_every_check(model):
    checks = check(str(model), RECORDS, NAMES, ServingCheckSettings())
    assert all(one.passed for one in checks), checks
    assert len(checks) == 10 and next(one.value for one in checks if one.name == "latency in ms") > 0


@pytest.mark.slow
def test_bounds_of_latency_and_memory(model):
    missed = failed(model, latency_ms=0.001, memory_gib=0.01)
    assert missed.keys() == {"latency in ms", "memory in GiB"}
    assert "is above 0.0010" in missed["latency in ms"]


@pytest.mark.slow
def test_answers_that_differ_from_the_trained_model_fail(model, tmp_path):
    other = export(tmp_path / "other", seed=2)
    shutil.copy(other / serving.KERAS_MODEL, model / serving.KERAS_MODEL)
    assert "difference from the trained model" in failed(model)


@pytest.mark.slow
def test_classes_in_another_order_fail(tmp_path):
    # Every class has another index: with random weights all six images may get the same class.
    assert failed(export(tmp_path / "model", names=["dog", "ship", "cat"])).keys() == {"misnamed classes"}


@pytest.mark.slow
def test_more_classes_than_in_the_data_fail(model):
    missed = {one.name for one in check(str(model), RECORDS, NAMES[:2], ServingCheckSettings()) if not one.passed}
    assert missed == {"misnamed classes"}


@pytest.mark.slow
def test_answers_that_are_not_finite_fail(tmp_path):
    missed = failed(export(tmp_path / "model", scale=np.nan))
    assert missed.keys() == {"answers that are not finite", "difference from the trained model"} | (
        missed.keys() & {"effect of hostile requests on other answers", "misnamed classes"}
    )
    assert missed["answers that are not finite"].startswith("answers that are not finite 28.0000 is above")


@pytest.mark.slow
def test_memory_is_that_of_the_model_and_not_of_the_checking_process(model):
    """The peak that the operating system records for a child process includes that of its parent."""
    ballast = bytearray(3 * 2**30)
    ballast[:: 2**12] = b"x" * len(ballast[:: 2**12])
    del ballast
    assert failed(model, memory_gib=2.5) == {}


def test_a_model_that_accepts_everything_as_an_image_fails(model, tmp_path):
    """It reports hostile requests as valid, and lacks three signatures."""
    names = tf.constant([name.encode() for name in NAMES])
    keras_model = serving.load_vit(str(model))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_bytes(image_bytes):
        count = tf.shape(image_bytes)[0]
        images, _ = decode_batch(image_bytes, Framing(8))
        probabilities = tf.nn.softmax(keras_model(images, training=False))
        label = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "label": label,
            "class": tf.gather(names, label),
            "valid": tf.fill([count], True),
        }

    served = tf.Module()
    served.variables_of_model = [weight.value for weight in keras_model.weights]
    tf.saved_model.save(served, str(tmp_path / "lax"), signatures={"serving_bytes": serving_bytes})
    shutil.copytree(model / "assets.extra", tmp_path / "lax" / "assets.extra")
    assert failed(tmp_path / "lax").keys() == {"signatures missing", "hostile requests accepted"}


@pytest.mark.slow
def test_a_model_without_a_signature_fails(model, tmp_path):
    loaded = tf.saved_model.load(str(model))
    kept = {name: loaded.signatures[name] for name in ("serving_default", "serving_bytes", "serving_images")}
    tf.saved_model.save(loaded, str(tmp_path / "less"), signatures=kept)
    shutil.copytree(model / "assets.extra", tmp_path / "less" / "assets.extra")
    assert failed(tmp_path / "less")["signatures missing"] == "signatures missing 1.0000 is above 0.0000 (explain)"


def test_a_model_that_does_not_load_fails(model):
    (model / "saved_model.pb").write_bytes(b"no graph")
    [line] = failed(model).values()
    assert line.startswith("loads and answers") and "exit code 1" in line

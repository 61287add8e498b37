"""LiteRT models, compared with the SavedModel that they were converted from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import serving
from trainer.litert import LiteRTModel, convert, first_line
from trainer.vit import ViT


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), "uint8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keras.utils.set_random_seed(0)  # some random weights are much less exact in int8
    model = ViT(image_size=8, patch_size=4, classes=3, depth=1, width=32, heads=2)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, 0, 0.2, seed=1))
    folder = tmp_path_factory.mktemp("saved") / "model"
    serving.export(model, ["cat", "dog", "ship"], str(folder))
    return folder


@pytest.fixture(scope="module")
def expected(folder, pixels):
    answers = tf.saved_model.load(str(folder)).signatures["serving_images"](images=tf.constant(pixels))
    return answers["probabilities"].numpy()


@pytest.fixture(scope="module")
def exported(folder):
    return convert(folder)


def answers(content, pixels):
    model = LiteRTModel(content, threads=1)
    return np.stack([model(image) for image in pixels])


def test_the_answers_are_those_of_the_saved_model(exported, pixels, expected):
    assert np.ptp(expected, axis=0).max() > 0.1  # the images have different answers
    np.testing.assert_allclose(answers(exported, pixels), expected, atol=1e-5)


def test_int8_is_smaller_and_close(folder, exported, pixels, expected):
    quantized = convert(folder, calibration=pixels)
    difference = np.abs(answers(quantized, pixels) - expected).mean()
    assert len(quantized) < len(exported) and 1e-5 < difference < 0.1


def test_another_saved_model_is_an_error(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    with pytest.raises(ValueError, match="serving_images"):
        convert(tmp_path / "other")


def test_an_error_without_a_message_is_named_by_its_type():
    assert first_line(RuntimeError()) == "RuntimeError"
    assert first_line(RuntimeError("\nno such operation\nat 0x1")) == "no such operation"

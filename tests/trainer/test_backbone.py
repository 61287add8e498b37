import shutil

import keras
import numpy as np
import pytest

from trainer import serving
from trainer.backbone import digest, load_backbone
from trainer.settings import FinetuneSettings, ModelSettings
from trainer.train import vit

MODEL = ModelSettings(image_size=8, depth=2, width=16, heads=2, pool="mean")
PIXELS = FinetuneSettings(pixel_mean=(100.0, 110.0, 120.0), pixel_std=(50.0, 60.0, 70.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One model, as each kind of backbone."""
    folder = tmp_path_factory.mktemp("backbone")
    keras.utils.set_random_seed(1)
    model = vit(MODEL, 3, PIXELS.pixel_mean, PIXELS.pixel_std)
    model.save(folder / "vit.keras")
    model.save_weights(folder / "vit.weights.h5")
    saved = folder / "1" / serving.KERAS_MODEL
    saved.parent.mkdir(parents=True)
    shutil.copy(folder / "vit.keras", saved)
    return folder


@pytest.mark.parametrize("name", ["vit.keras", "vit.weights.h5", "1"])
def test_every_kind_of_backbone_is_the_same_model(folder, name):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    expected = keras.models.load_model(folder / "vit.keras")
    backbone = load_backbone(str(folder / name), MODEL, PIXELS)
    np.testing.assert_array_equal(backbone(images), expected(images))
    assert digest(backbone) == digest(expected)


def test_the_digest_is_of_weights_and_normalisation():
    model = vit(MODEL, 3, [128.0] * 3, [64.0] * 3)
    other = vit(MODEL, 3, [128.0] * 3, [65.0] * 3)
    other.set_weights(model.get_weights())
    assert digest(other) != digest(model)
    first = digest(model)
    model.head.bias.assign([0.0, 0.0, 1.0])
    assert digest(model) != first


def test_weights_without_their_normalisation_are_refused(folder):
    with pytest.raises(ValueError, match=r"does not say how its model normalised pixels: set finetune.pixel_mean"):
        load_backbone(str(folder / "vit.weights.h5"), MODEL, FinetuneSettings())


def test_weights_know_the_size_of_their_images(folder):
    other = MODEL.model_copy(update={"image_size": 32})
    backbone = load_backbone(str(folder / "vit.weights.h5"), other, PIXELS)
    assert backbone.config["image_size"] == 8
    assert digest(backbone) == digest(load_backbone(str(folder / "vit.keras")))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    file = tmp_path / "vit.keras"
    model = vit(MODEL, 3, [128.0] * 3, [64.0] * 3)
    model.head.bias.assign([0.0, np.nan, 0.0])
    model.save(file)
    with pytest.raises(ValueError, match=r"vit.keras has weights, .* not finite"):
        load_backbone(str(file))
    vit(MODEL, 3, [128.0] * 3, [64.0, 0.0, 64.0]).save(file)
    with pytest.raises(ValueError, match=r"vit.keras has .* a std of 0"):
        load_backbone(str(file))
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        FinetuneSettings(pixel_std=(0.229, 0.224, 0.225))


def test_weights_of_another_model_are_named_with_what_was_expected(folder):
    deeper = MODEL.model_copy(update={"depth": 3})
    with pytest.raises(ValueError, match=r"does not hold the weights of a ViT of model.depth 3, width 16"):
        load_backbone(str(folder / "vit.weights.h5"), deeper, PIXELS)


def test_what_is_no_vit_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.keras: no such backbone"):
        load_backbone(str(tmp_path / "nothing.keras"))
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"bad.keras cannot be read as a Keras model"):
        load_backbone(str(tmp_path / "bad.keras"))
    other = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.h5")
    with pytest.raises(ValueError, match=r"other.h5 is neither a .keras nor a .weights.h5 file"):
        load_backbone(str(tmp_path / "other.h5"))
    other.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"holds a Sequential, not a ViT"):
        load_backbone(str(tmp_path / "other.keras"))

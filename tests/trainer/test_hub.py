"""A preset of KerasHub as a ViT of ours, against KerasHub itself. All weights are noise: nothing is downloaded."""

import sys

import numpy as np
import pytest

from trainer.backbone import digest, load_backbone
from trainer.hub import load_hub

SIZES = {"image_shape": (32, 32, 3), "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
SMALL = {**SIZES, "num_layers": 1}
# Unlike for each channel, so that no two may be mixed up.
SCALE, OFFSET = (1 / 50, 1 / 60, 1 / 70), (-2.5, -2.0, -1.5)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def keras_hub():
    return pytest.importorskip("keras_hub", reason="KerasHub is not installed: make setup")


@pytest.fixture(scope="module")
def classifier(keras_hub):
    """Every weight is noise, biases and norms too: where they start, at 0 and 1, none could be missed."""
    converter = keras_hub.layers.ViTImageConverter(image_size=(32, 32), scale=SCALE, offset=OFFSET)
    classifier = keras_hub.models.ViTImageClassifier(
        backbone=keras_hub.models.ViTBackbone(**SIZES),
        num_classes=5,
        activation="softmax",
        preprocessor=keras_hub.models.ViTImageClassifierPreprocessor(image_converter=converter),
    )
    noise = np.random.default_rng(1)
    classifier.set_weights([noise.normal(0, 0.3, weight.shape) for weight in classifier.get_weights()])
    return classifier


def softmax(logits):
    odds = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_a_classifier_answers_as_in_kerashub_to_raw_pixels(classifier, tmp_path):
    classifier.save_to_preset(str(tmp_path))
    expected = classifier.predict(IMAGES, verbose=0)
    vit = load_hub(str(tmp_path))
    logits, attention = vit.explain(IMAGES)
    assert np.ptp(expected, axis=0).max() > 1000 * TOLERANCE  # else any constant would do
    np.testing.assert_allclose(softmax(vit(IMAGES)), expected, atol=TOLERANCE)
    np.testing.assert_allclose(softmax(logits), expected, atol=TOLERANCE)
    assert attention.shape == (3, 2, 4, 17, 17)
    assert digest(load_backbone(str(tmp_path))) == digest(vit)


def test_the_convention_is_that_of_the_preset(classifier, tmp_path):
    classifier.save_to_preset(str(tmp_path))
    expected = classifier.predict(IMAGES, verbose=0)
    vit = load_hub(str(tmp_path))
    np.testing.assert_allclose(vit.config["mean"], [125, 120, 105])
    np.testing.assert_allclose(vit.config["std"], [50, 60, 70])
    # What either answers to pixels that were scaled to 0 to 1 first is something else.
    assert np.abs(softmax(vit(IMAGES / 255)) - expected).max() > 1000 * TOLERANCE
    assert np.abs(classifier(IMAGES / 255) - expected).max() > 1000 * TOLERANCE


def test_a_backbone_alone_gives_the_same_features_and_a_head_of_zeros(classifier, tmp_path):
    classifier.backbone.save_to_preset(str(tmp_path))
    classifier.preprocessor.save_to_preset(str(tmp_path))
    vit = load_hub(str(tmp_path))
    assert vit.config["classes"] == 10
    np.testing.assert_array_equal(vit(IMAGES), np.zeros((3, 10)))
    head = np.random.default_rng(2).normal(0, 0.1, (32, 10))
    vit.head.kernel.assign(head)
    features = classifier.backbone.predict(classifier.preprocessor(IMAGES), verbose=0)[:, 0]
    np.testing.assert_allclose(vit(IMAGES), features @ head, atol=TOLERANCE)


def test_pixels_that_the_converter_leaves_as_they_are_stay_so(keras_hub, tmp_path):
    keras_hub.models.ViTBackbone(**SMALL).save_to_preset(str(tmp_path))
    keras_hub.layers.ViTImageConverter(offset=-128.0).save_to_preset(str(tmp_path))
    vit = load_hub(str(tmp_path))
    assert vit.config["mean"] == [128, 128, 128] and vit.config["std"] == [1, 1, 1]


@pytest.mark.parametrize(
    "other, reason",
    [
        ({"image_shape": (32, 16, 3)}, r"image_shape \[32, 16, 3\] is no square of 3 channels"),
        ({"image_shape": (32, 32, 1)}, r"image_shape \[32, 32, 1\] is no square of 3 channels"),
        ({"patch_size": (8, 16)}, r"patch_size \[8, 16\] is no square"),
        ({"mlp_dim": 48}, "mlp_dim 48 is no multiple of hidden_dim 32"),
        ({"layer_norm_epsilon": 1e-12}, "layer_norm_epsilon 1e-12 is not 1e-06"),
        ({"use_class_token": False}, "use_class_token is False"),
        ({"use_patch_bias": False}, "use_patch_bias is False"),
        ({"use_mha_bias": False, "use_mlp_bias": False}, "use_mha_bias is False; use_mlp_bias is False"),
    ],
)
def test_a_backbone_that_ours_cannot_be_is_refused(keras_hub, tmp_path, other, reason):
    keras_hub.models.ViTBackbone(**{**SMALL, **other}).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match=rf"is no ViT that ours can be: {reason}.* Name another preset"):
        load_hub(str(tmp_path))


@pytest.mark.parametrize(
    "other, reason",
    [
        ({"pooling": "gap"}, "the classifier's pooling 'gap' is not 'token'"),
        ({"intermediate_dim": 8}, "the classifier has a layer of intermediate_dim 8"),
        ({"activation": "sigmoid"}, "the classifier's activation is sigmoid, not softmax"),
    ],
)
def test_a_classifier_that_ours_cannot_be_is_refused(keras_hub, tmp_path, other, reason):
    backbone = keras_hub.models.ViTBackbone(**SMALL)
    keras_hub.models.ViTImageClassifier(backbone, num_classes=5, **other).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match=reason):
        load_hub(str(tmp_path))


def test_another_model_is_refused_by_its_name(keras_hub, tmp_path):
    keras_hub.models.DeiTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=1, num_heads=4, hidden_dim=32, intermediate_dim=64
    ).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="it holds a DeiTBackbone, not a ViTBackbone"):
        load_hub(str(tmp_path))


def test_pixels_of_unknown_scale_are_refused(keras_hub, tmp_path):
    keras_hub.models.ViTBackbone(**SMALL).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="has no image converter, so how its pixels were scaled is unknown"):
        load_hub(str(tmp_path))
    keras_hub.layers.ViTImageConverter(scale=-1.0).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match=r"scales pixels by -1.0: its inverse is a std"):
        load_hub(str(tmp_path))


def test_what_is_no_preset_is_named(keras_hub, tmp_path):
    with pytest.raises(ValueError, match="cannot be read as a KerasHub preset"):
        load_hub(str(tmp_path))
    with pytest.raises(ValueError, match="nothing_of_that_name cannot be read as a KerasHub preset"):
        load_hub("nothing_of_that_name")


def test_without_kerashub_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"KerasHub, which is not installed .*: make setup LOCK=hub"):
        load_hub("vit_base_patch16_224_imagenet")

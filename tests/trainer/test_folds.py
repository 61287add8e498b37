"""Tests of predictions for images by ViTs that were not trained on them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trainer.folds import Recipe, predict_out_of_fold, small_recipe
from trainer.input import Split
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.train import train

# A training that is compiled faster than that of `small_recipe`.
TINY = Recipe(
    ModelSettings(image_size=8, patch_size=4, depth=1, width=16, heads=2),
    AugmentSettings(crop_padding=0, randaugment_ops=0, mixup=0, cutmix=0, erase=0),
    TrainingSettings(epochs=20, batch_size=20, learning_rate=0.01, warmup_epochs=1, ema_epochs=0, use_val=True),
)


def test_the_recipe_takes_from_the_run_only_what_concerns_its_images():
    model = ModelSettings(
        image_size=48, patch_size=6, depth=12, width=384, heads=6, resize="crop", background=(1, 2, 3)
    )
    small = small_recipe(model, AugmentSettings(flip=False), TrainingSettings(seed=7, epochs=300), 4, images=1000)
    assert small.model.framing == model.framing and small.model.patch_size == 6
    assert (small.model.depth, small.model.width, small.model.conv_stem) == (4, 64, False)  # 6 is no power of two
    assert (small.augmentation.flip, small.augmentation.mixup) == (False, 0)
    assert (small.training.seed, small.training.epochs) == (7, 4)


@pytest.mark.parametrize("patch", [1, 2, 16, 128])
def test_the_recipe_suits_every_patch(patch):
    small_recipe(ModelSettings(image_size=128, patch_size=patch), AugmentSettings(), TrainingSettings(), 1, images=9)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Dark and bright images, of which three have the wrong label and one is like no other, and their predictions."""
    rng = np.random.default_rng(0)
    true = np.arange(120) % 2
    images = (rng.integers(0, 60, (120, 8, 8, 3)) + 150 * true[:, None, None, None]).astype(np.uint8)
    images[50] = np.indices((8, 8)).sum(axis=0)[..., None] % 2 * 255
    labels = true.astype(np.int64)
    wrong = [4, 31, 77]
    labels[wrong] = 1 - true[wrong]
    folder = tmp_path_factory.mktemp("checkpoints")
    arguments = Split(images, labels), np.arange(120) // 2 % 2, 2, TINY, [100] * 3, [80] * 3, folder
    return arguments, true, predict_out_of_fold(*arguments)


def test_wrong_labels_are_not_learned_from_the_images_themselves(checked):
    _, true, predictions = checked
    rest = np.arange(120) != 50
    assert predictions.probabilities.shape == (120, 2)
    assert np.allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (predictions.probabilities.argmax(axis=1) == true)[rest].all()


def test_an_image_like_no_other_is_far_away(checked):
    assert checked[2].distances.argmax() == 50


def test_later_folds_take_no_more_room_on_the_disk(checked, monkeypatch):
    maps = []

    def count_maps(*arguments, **options):
        maps.append(sum("(deleted)" in line for line in Path("/proc/self/maps").read_text().splitlines()))
        return train(*arguments, **options)

    monkeypatch.setattr("trainer.folds.train", count_maps)
    predict_out_of_fold(*checked[0])
    assert len(maps) == 2 and maps[0] == maps[1] > 0


def test_images_that_do_not_fit_on_the_disk_are_refused_before_a_training(checked, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=120 * 8 * 8 * 3 - 1))
    with pytest.raises(OSError, match=r"the pixels of 120 images take .*: set TMPDIR"):
        predict_out_of_fold(*checked[0])


def test_a_repetition_continues_from_the_checkpoints(checked, caplog):
    arguments, _, predictions = checked
    caplog.set_level("INFO")
    again = predict_out_of_fold(*arguments)
    assert np.allclose(again.probabilities, predictions.probabilities, atol=1e-5)
    assert caplog.text.count("continuing from") == 2 and "epoch 1/20" not in caplog.text

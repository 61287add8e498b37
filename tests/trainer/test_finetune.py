import json
import logging
import shutil

import keras
import numpy as np
import pytest

from tests.helpers.job import PLAIN, TRAINING, split
from trainer.finetune import accept, adapt, fine_tune, phases, rebuild_head, training_of_phase
from trainer.settings import (
    REPLACED_IN_FINETUNING,
    AugmentSettings,
    FinetuneSettings,
    ModelSettings,
    TrainingSettings,
)
from trainer.train import build_vit

MODEL = ModelSettings(image_size=8, depth=3, width=16, heads=2)
FINETUNE = FinetuneSettings(head_epochs=2, epochs=3, blocks=1, head_learning_rate=3e-2, learning_rate=3e-3)


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(5)
    return build_vit(MODEL, 7, [100.0, 110.0, 120.0], [50.0, 60.0, 70.0])


def tune(backbone, folder, finetune=FINETUNE, **training):
    return fine_tune(
        backbone,
        MODEL,
        finetune,
        TrainingSettings(**TRAINING | {"checkpoint_seconds": 0} | training),
        2,
        checkpoints=folder / "checkpoints" / "course",
        augmentation=AugmentSettings(**PLAIN),
        train_split=split(64, 0),
        val_split=split(40, 1),
        log_dir=folder / "log",
    )


def changed(one, other):
    """Return the names of the layers whose weights differ."""
    pairs = zip(one.weights, other.weights, strict=True)
    return {left.path.split("/")[1] for left, right in pairs if not np.array_equal(left, right)}


def test_a_phase_replaces_settings_of_the_training():
    training = TrainingSettings()
    head, blocks = (training_of_phase(training, phase) for phase in phases(FINETUNE))
    assert (head.epochs, head.learning_rate, head.weight_decay) == (2, 3e-2, 0)
    assert (blocks.epochs, blocks.learning_rate, blocks.weight_decay) == (3, 3e-3, FINETUNE.weight_decay)
    assert (blocks.warmup_epochs, blocks.final_learning_rate) == (0, 0)
    replaced = {name for name, value in blocks if value != getattr(training, name)}
    assert replaced == {*REPLACED_IN_FINETUNING}


@pytest.fixture(scope="module")
def tuned(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    return folder, tune(backbone, folder)


def test_an_adapted_model_normalises_pixels_as_the_backbone_does(backbone):
    """It uses the backbone's mean and std and not those of the new data."""
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    adapted = adapt(backbone, MODEL, 2, 0)
    assert (adapted.config["mean"], adapted.config["std"]) == ([100.0, 110.0, 120.0], [50.0, 60.0, 70.0])
    adapted.head.kernel.assign(backbone.head.kernel[:, :2])
    np.testing.assert_array_equal(adapted(images), backbone(images)[:, :2])


@pytest.mark.parametrize(
    ("blocks", "trained"),
    [
        (0, {"head"}),
        (1, {"head", "norm", "block_02"}),
        (9, {"head", "norm", "block_00", "block_01", "block_02"}),
        (None, {"head", "norm", "block_00", "block_01", "block_02", "patches", "tokens"}),
    ],
)
def test_only_the_head_and_the_last_blocks_are_trained(backbone, blocks, trained):
    adapted = adapt(backbone, MODEL, 2, blocks)
    assert {weight.path.split("/")[1] for weight in adapted.trainable_weights} == trained


def test_image_size_and_dropout_rates_come_from_the_settings(backbone):
    model = MODEL.model_copy(update={"image_size": 16, "dropout": 0.1, "stochastic_depth": 0.2, "depth": 1, "width": 8})
    adapted = adapt(backbone, model, 2, 1)
    assert adapted.tokens.positions.shape == (1, 17, 16)
    own = {"image_size": 16, "dropout": 0.1, "stochastic_depth": 0.2, "classes": 2}
    assert adapted.config == {**backbone.config, **own}
    np.testing.assert_array_equal(adapted.tokens.positions[:, 0], backbone.tokens.positions[:, 0])


def test_frozen_layers_apply_no_dropout(backbone):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    model = MODEL.model_copy(update={"dropout": 0.5, "stochastic_depth": 0.5})
    noisy = {blocks: adapt(backbone, model, 7, blocks) for blocks in (0, 1)}
    for adapted in noisy.values():
        adapted.head.set_weights(backbone.head.get_weights())
        adapted.head.kernel.assign(np.random.default_rng(1).normal(size=(16, 7)))
    np.testing.assert_array_equal(noisy[0](images, training=True), noisy[0](images))
    assert np.abs(noisy[1](images, training=True) - noisy[1](images)).max() > 0


def test_it_trains_the_head_and_then_the_last_blocks(backbone, tuned):
    folder, (best, last, rows) = tuned
    assert changed(adapt(backbone, MODEL, 2, None), last) == {"head", "norm", "block_02"}
    test = split(100, 2)
    assert (np.array(best(test.images)).argmax(1) == test.labels).mean() > 0.95
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["learning_rate"] == pytest.approx(1.5e-2, rel=1e-3)  # half-way down the first cosine
    assert rows[1]["learning_rate"] == rows[4]["learning_rate"] == 0 < rows[2]["learning_rate"] < 3e-3
    written = [json.loads(line) for line in (folder / "log" / "history.jsonl").read_text().splitlines()]
    assert written == rows


@pytest.mark.slow
def test_the_best_epoch_is_chosen_from_both_phases(backbone, tmp_path):
    """A second phase that makes the model worse is not exported."""
    harmful = FINETUNE.model_copy(update={"learning_rate": 30.0, "epochs": 2})
    best, last, rows = tune(backbone, tmp_path, harmful)
    assert max(rows, key=lambda row: row["val_accuracy"])["epoch"] <= 2
    assert changed(adapt(backbone, MODEL, 2, None), best) == {"head"}
    assert changed(adapt(backbone, MODEL, 2, None), last) > {"head"}


def test_a_phase_without_epochs_is_left_out(backbone, tmp_path):
    _, last, rows = tune(backbone, tmp_path, FINETUNE.model_copy(update={"epochs": 0}))
    assert len(rows) == 2 and changed(adapt(backbone, MODEL, 2, None), last) == {"head"}
    with pytest.raises(ValueError, match=r"head_epochs and finetune\.epochs are both 0"):
        tune(backbone, tmp_path, FinetuneSettings(head_epochs=0, epochs=0))


def test_a_model_is_accepted_without_training(backbone):
    model, names = adapt(backbone, MODEL, 7, None), list("abcdefg")
    model.head.set_weights([np.random.default_rng(1).normal(size=(16, 7)), np.arange(7)])
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    for old in (names, []):
        accepted = accept(model, old, names, flip_average=False)
        np.testing.assert_array_equal(accepted.best(images), model(images))
        assert accepted.best is accepted.last and accepted.rows == []
    turned = accept(model, names, names[::-1], flip_average=True)
    np.testing.assert_array_equal(np.array(turned.best(images))[:, ::-1], model(images))
    assert turned.best.config["flip_average"] and not accepted.best.config["flip_average"]
    with pytest.raises(ValueError, match=r"lacks the classes \['x'\] of the data, and has \['g'\] instead: "):
        accept(model, names, [*names[:6], "x"], flip_average=False)
    with pytest.raises(ValueError, match="the model has 7 classes, but the data has 2"):
        accept(model, [], ["a", "b"], flip_average=False)


@pytest.mark.slow
def test_finished_epochs_are_not_trained_again(backbone, tuned, caplog):
    folder, (best, last, rows) = tuned
    newest = max((folder / "checkpoints" / "course-2").iterdir())
    newest.unlink()  # as if it were killed in the last epoch of the second phase
    caplog.set_level(logging.INFO)
    again = tune(backbone, folder)
    assert "epoch 4/5" not in caplog.text and "epoch 5/5" in caplog.text
    assert not changed(last, again.last) and not changed(best, again.best)
    assert [row["val_accuracy"] for row in again.rows] == [row["val_accuracy"] for row in rows]


@pytest.mark.slow
def test_a_training_killed_between_the_phases_ends_with_the_same_result(backbone, tuned, tmp_path):
    folder, (best, last, rows) = tuned
    shutil.copytree(folder / "checkpoints" / "course-1", tmp_path / "checkpoints" / "course-1")
    again = tune(backbone, tmp_path)
    assert not changed(last, again.last) and not changed(best, again.best)
    assert again.rows[:2] == rows[:2]  # equal seconds show that the first phase was not trained again
    assert [row["val_accuracy"] for row in again.rows] == [row["val_accuracy"] for row in rows]


@pytest.mark.slow
def test_patience_of_the_second_phase_does_not_count_the_first(backbone, tmp_path):
    frozen = FINETUNE.model_copy(update={"learning_rate": 1e-12, "epochs": 4, "weight_decay": 0.0})
    _, _, rows = tune(backbone, tmp_path, frozen, patience=2)
    assert 4 <= len(rows) <= 6  # at least two in each phase


def test_a_rebuilt_head_keeps_weights_by_class_name(backbone):
    old = ["a", "b", "c", "d", "e", "f", "g"]
    backbone.head.set_weights([np.arange(16 * 7).reshape(16, 7).astype("float32"), np.arange(7.0)])
    pixels = split(4, 0).images
    logits = np.array(backbone(pixels))
    new = ["g", "ship", "b"]
    rebuilt = rebuild_head(backbone, MODEL, old, new)
    assert changed(backbone, rebuild_head(backbone, MODEL, old, old)) == set()
    got = np.array(rebuilt(pixels))
    np.testing.assert_allclose(got[:, [0, 2]], logits[:, [6, 1]], rtol=1e-5, atol=1e-4)
    assert not got[:, 1].any()  # the weights of a new class are 0
    reordered = rebuild_head(backbone, MODEL, old, old[::-1])
    np.testing.assert_allclose(np.array(reordered(pixels)), logits[:, ::-1], rtol=1e-5, atol=1e-4)

import json
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.job import PLAIN, TRAINING, split
from trainer import devices
from trainer.checkpoint import Checkpoints
from trainer.input import Split
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.train import build_vit, train
from trainer.vit import ViT

MODEL = ModelSettings(image_size=8, depth=1, width=16, heads=2)


def run(tmp_path, training=None, augment=None, name="run", **arguments):
    """Train, and return the best model and the last one."""
    return train(
        partial(build_vit, MODEL, 2, [128.0] * 3, [64.0] * 3),
        2,
        AugmentSettings(**PLAIN | (augment or {})),
        TrainingSettings(**TRAINING | (training or {})),
        split(64, 0),
        split(40, 1),
        log_dir=tmp_path / name,
        checkpoints=Checkpoints(tmp_path / "checkpoints" / name),
        **arguments,
    )[:2]


def history(tmp_path, name="run"):
    return [json.loads(line) for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]


def weights_equal(one, two):
    return all(np.array_equal(left, right) for left, right in zip(one.get_weights(), two.get_weights(), strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, *run(folder)


def test_it_learns_to_classify(trained):
    _, best, last = trained
    test = split(100, 2)
    for model in (best, last):
        assert (np.array(model(test.images)).argmax(1) == test.labels).mean() > 0.95
        assert model.dtype_policy.name == "float32"


def test_the_history_has_a_row_for_each_epoch(trained):
    folder, _, _ = trained
    rows = history(folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["val_accuracy"] > 0.95
    assert rows[0]["learning_rate"] == pytest.approx(1e-2)  # the peak, at the end of the warmup
    assert rows[-1]["learning_rate"] == pytest.approx(1e-5)
    assert all(row["images_per_second"] > 0 and row["seconds"] > 0 and row["val_loss"] > 0 for row in rows)


def test_tensorboard_files_contain_the_history(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _, _ = trained
    events = EventAccumulator(str(folder / "run"))
    events.Reload()
    for name in ("loss", "val_accuracy", "learning_rate", "images_per_second"):
        curve = [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(name)]
        assert curve == [(row["epoch"], pytest.approx(row[name])) for row in history(folder)]


def test_a_finished_training_is_not_trained_again(trained, caplog):
    folder, best, last = trained
    caplog.set_level("INFO")
    again_best, again_last = run(folder)
    assert weights_equal(best, again_best) and weights_equal(last, again_last)
    assert "continuing from" in caplog.text and "epoch 1/4" not in caplog.text


@pytest.mark.slow
def test_the_same_seed_repeats_exactly_and_another_does_not(trained, tmp_path):
    _, _, last = trained
    _, again = run(tmp_path, name="again")
    assert weights_equal(last, again)
    _, other = run(tmp_path, {"seed": 1}, name="other")
    assert not weights_equal(last, other)


@pytest.mark.slow
def test_a_batch_computed_in_parts_gives_the_same_history(trained, tmp_path):
    folder, _, last = trained
    _, parted = run(tmp_path, {"accumulate": 4})
    for whole, parts in zip(history(folder), history(tmp_path), strict=True):
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    for one, two in zip(last.get_weights(), parted.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_with_resized_crops_it_trains_on_images_larger_than_the_input_of_the_model(tmp_path):
    small = split(64, 0)
    _, last, _ = train(
        partial(build_vit, MODEL, 2, [128.0] * 3, [64.0] * 3),
        2,
        AugmentSettings(**PLAIN | {"crop_padding": 0, "stored_size": 16, "resized_crop_scale": (0.2, 1)}),
        TrainingSettings(**TRAINING),
        Split(small.images.repeat(2, axis=1).repeat(2, axis=2), small.labels),
        split(40, 1),
        log_dir=tmp_path / "run",
        checkpoints=Checkpoints(tmp_path / "checkpoints"),
    )
    assert last.config["image_size"] == 8
    assert history(tmp_path)[-1]["val_accuracy"] > 0.95


@pytest.mark.slow
def test_the_averaged_weights_are_evaluated_and_exported(tmp_path):
    """The horizon is so long that the average stays close to the weights of the first step."""
    _, slow = run(tmp_path, {"ema_epochs": 1000.0}, name="slow")
    _, raw = run(tmp_path, {"ema_epochs": 0.0}, name="raw")
    change = [np.abs(np.array(model.head.kernel)).max() for model in (raw, slow)]
    assert change[1] < 0.1 * change[0]  # the weights of a new head are 0
    losses = [history(tmp_path, name)[-1]["val_loss"] for name in ("raw", "slow")]
    assert losses[1] > 1.2 * losses[0]
    assert history(tmp_path, "slow")[-1]["loss"] == pytest.approx(history(tmp_path, "raw")[-1]["loss"], rel=1e-4)


@pytest.mark.slow
def test_float16_training_recovers_from_an_overflow(tmp_path, monkeypatch):
    """With too large a scale the first steps change no weights, and the scale is halved until they do."""
    from trainer.learner import Learner

    plain = Learner.__init__

    def overflowing(self, *arguments):
        plain(self, *arguments)
        self.loss_scale.assign(2.0**25)

    monkeypatch.setattr(Learner, "__init__", overflowing)
    run(tmp_path, {"precision": "float16", "epochs": 8})
    assert history(tmp_path)[-1]["val_accuracy"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "cpu_multiplies"),
    [
        ({"precision": "bfloat16"}, True),
        ({"precision": "bfloat16", "accumulate": 2}, True),
        ({"precision": "bfloat16"}, False),
        ({"precision": "float16"}, False),
    ],
)
def test_mixed_precision_learns_and_exports_float32(tmp_path, training, cpu_multiplies, monkeypatch):
    monkeypatch.setattr(devices, "cpu_multiplies_bfloat16", lambda: cpu_multiplies)
    best, _ = run(tmp_path, training)
    assert best.dtype_policy.name == "float32"
    assert history(tmp_path)[-1]["val_accuracy"] > 0.95


@pytest.mark.slow
def test_it_stops_if_val_does_not_improve(tmp_path):
    run(tmp_path, {"epochs": 40, "patience": 3})
    rows = history(tmp_path)
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert len(rows) == best["epoch"] + 3 < 40
    run(tmp_path, {"epochs": 40, "patience": 3})  # it does not continue when it is started again
    assert len(history(tmp_path)) == len(rows)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    # Each step multiplies the weights by a million.
    diverging = {"learning_rate": 1e3, "weight_decay": 1e3, "warmup_epochs": 0, "batch_size": 8}
    with pytest.raises(FloatingPointError, match=r"epoch 1, step [2-8], at learning rate .* none was due yet"):
        run(tmp_path, diverging, augment={"crop_padding": 0})
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_it_starts_from_the_given_weights(tmp_path, trained):
    _, best, _ = trained
    run(tmp_path, {"learning_rate": 1e-9, "final_learning_rate": 0.0}, name="warm", start=best)
    assert history(tmp_path, "warm")[0]["val_accuracy"] > 0.95


def test_a_start_of_another_shape_is_rejected(tmp_path):
    wider = ViT(image_size=8, depth=1, width=32, heads=2, classes=2, name="vit")
    with pytest.raises(ValueError, match=r"head.*32"):
        run(tmp_path, start=wider)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"batch_size": 128}, "batch_size 128 is more than the 64"),
        ({"batch_size": 30, "accumulate": 4}, "batch_size 30 is not a multiple of 8"),
    ],
)
def test_a_batch_size_that_does_not_fit_is_rejected(tmp_path, training, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, training)

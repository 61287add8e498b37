import json

import numpy as np
import pytest

from trainer.input import Split
from trainer.settings import ModelSettings, TrainingSettings
from trainer.train import train

MODEL = ModelSettings(image_size=8, patch_size=4, depth=1, width=16, heads=2)
MOMENTS = {"mean": [128.0] * 3, "std": [64.0] * 3}


def split(count, seed):
    """Two classes anybody can tell apart: dark and bright images."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return Split((rng.integers(0, 100, (count, 8, 8, 3)) + 150 * labels[:, None, None, None]).astype("uint8"), labels)


def run(tmp_path, train_split=None, **settings):
    defaults = {"epochs": 3, "batch_size": 16, "warmup_epochs": 1, "learning_rate": 1e-2, "crop_padding": 1}
    training = TrainingSettings(**defaults | settings)
    return train(MODEL, training, train_split or split(64, 0), split(32, 1), 2, **MOMENTS, log_dir=tmp_path)


def test_it_learns_and_writes_its_history(tmp_path):
    model = run(tmp_path)
    test = split(100, 2)
    assert (np.array(model(test.images)).argmax(1) == test.labels).mean() > 0.95
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["val_accuracy"] > 0.95
    assert rows[-1]["learning_rate"] == pytest.approx(1e-5)
    assert all(row["images_per_second"] > 0 and row["seconds"] > 0 for row in rows)


def test_the_same_seed_repeats_exactly_and_another_does_not(tmp_path):
    first, again, other = (run(tmp_path, seed=seed).get_weights() for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_mixed_precision_exports_float32(tmp_path):
    model = run(tmp_path, precision="bfloat16")
    assert model.dtype_policy.name == "float32"


def test_a_gpu_that_is_required_and_missing_is_said_at_once(tmp_path):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="require_gpu"):
        run(tmp_path, require_gpu=True)


def test_a_batch_larger_than_the_data_is_named(tmp_path):
    with pytest.raises(ValueError, match="batch_size 128 is more than the 64"):
        run(tmp_path, batch_size=128)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="epoch 1, at learning rate"):
        run(tmp_path, learning_rate=1e30)

import keras
import numpy as np
import pytest

from trainer.optimizer import WarmupCosine, adamw
from trainer.vit import ViT


def test_the_schedule_rises_to_its_peak_and_falls_to_its_floor():
    schedule = WarmupCosine(peak=1.0, total_steps=100, warmup_steps=10, floor=0.01)
    rates = [float(schedule(step)) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)  # the first step learns already
    assert rates[9] == pytest.approx(1.0) == max(rates)
    assert rates[99] == pytest.approx(0.01) == min(rates)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[54] == pytest.approx((1.0 + 0.01) / 2)  # half way down


def test_no_warmup_starts_at_the_top():
    assert float(WarmupCosine(1.0, 1000, 0, 0.0)(0)) == pytest.approx(1.0, abs=1e-4)


def test_a_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="warmup_steps 10"):
        WarmupCosine(1.0, 10, 10, 0.0)


def test_decay_shrinks_matrices_only():
    model = ViT(image_size=8, depth=1, width=8, heads=2)
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    optimizer = adamw(model, 0.1, weight_decay=0.5)
    optimizer.apply([keras.ops.zeros(weight.shape) for weight in model.trainable_weights])
    shrunk = {weight.name for weight in model.trainable_weights if np.array(weight).max() < 1}
    kept = {weight.name for weight in model.trainable_weights if np.array(weight).max() == 1}
    assert shrunk == {"kernel"}
    assert kept == {"bias", "gamma", "beta", "cls", "positions"}

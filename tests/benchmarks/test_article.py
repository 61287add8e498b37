import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import article
from flops import training_flops


def test_the_model_has_as_many_parameters_as_the_articles():
    assert article.vit().count_params() == 4_771_082


def test_training_flops_of_known_models():
    assert training_flops(whole=True) == pytest.approx(1.92e9, rel=0.01)
    assert 0.85 < training_flops() / training_flops(whole=True) < 0.9  # five of six blocks and a sixth of the last
    assert training_flops(pool="mean") == pytest.approx(64 / 65 * training_flops(whole=True), rel=0.01)


def test_the_schedule_starts_at_zero_and_ends_near_it():
    schedule = article.Schedule(200)
    rates = [float(schedule(step)) for step in range(201)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(5e-4)  # half of the ten steps of warmup
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[200] == pytest.approx(1e-8, rel=0.1)


def test_the_recipe_trains_all_weights():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    labels = generator.integers(0, 3, 24)
    model = article.vit(classes=3, image_size=16, depth=1, width=8, heads=2)
    before = [np.array(weight) for weight in model.trainable_weights]
    article.compile_recipe(model, total_steps=20)
    model.fit(article.training_batches(images, labels, 3, batch_size=8), epochs=1, shuffle=False, verbose=0)
    _, accuracy = model.evaluate(article.test_batches(images, labels, 3), verbose=0)
    assert 0 <= accuracy <= 1
    changed = [
        weight.name
        for old, weight in zip(before, model.trainable_weights, strict=True)
        if np.any(old != np.array(weight))
    ]
    assert {"cls", "pos_embed"} <= set(changed)

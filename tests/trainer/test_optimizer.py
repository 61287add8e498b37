import keras
import numpy as np
import pytest

from trainer.optimizer import WarmupCosine, build_optimizer, orthogonalize
from trainer.vit import ViT


def test_the_schedule_rises_to_its_peak_and_falls_to_its_floor():
    schedule = WarmupCosine(peak=1.0, total_steps=100, warmup_steps=10, floor=0.01)
    rates = [float(schedule(step)) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)  # the first step learns already
    assert rates[9] == pytest.approx(1.0) == max(rates)
    assert rates[99] == pytest.approx(0.01) == min(rates)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[54] == pytest.approx((1.0 + 0.01) / 2)  # half-way down


def test_no_warmup_starts_at_the_top():
    assert float(WarmupCosine(1.0, 1000, 0, 0.0)(0)) == pytest.approx(1.0, abs=1e-4)


def test_a_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="warmup_steps 10"):
        WarmupCosine(1.0, 10, 10, 0.0)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_shrinks_matrices_only(name):
    model = ViT(image_size=8, depth=1, width=8, heads=2)
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    optimizer = build_optimizer(name, model, 0.1, weight_decay=0.5)
    optimizer.apply([keras.ops.zeros(weight.shape) for weight in model.trainable_weights])
    shrunk = {weight.name for weight in model.trainable_weights if np.array(weight).max() < 1}
    kept = {weight.name for weight in model.trainable_weights if np.array(weight).max() == 1}
    assert shrunk == {"kernel"}
    assert kept == {"bias", "gamma", "beta", "cls", "positions"}


@pytest.mark.parametrize("shape", [(3, 16, 48), (3, 48, 16)])
def test_orthogonalization_keeps_singular_vectors_and_brings_singular_values_near_one(shape):
    matrices = np.random.default_rng(0).normal(size=shape).astype("float32")
    result = np.array(orthogonalize(matrices))
    singular_values = np.linalg.svd(result, compute_uv=False)
    assert 0.6 < singular_values.min() < singular_values.max() < 1.3
    left, _, right = np.linalg.svd(matrices, full_matrices=False)
    np.testing.assert_allclose(result, left @ right, atol=0.15)


def test_muon_updates_each_block_matrix_separately_and_all_other_weights_as_adamw():
    """Two steps are compared, because momentum has no effect on the first."""
    model = ViT(image_size=8, depth=2, width=16, heads=2)
    generator = np.random.default_rng(0)
    steps = [[generator.normal(size=w.shape).astype("float32") for w in model.trainable_weights] for _ in range(2)]
    start = model.get_weights()

    def updates(name):
        model.set_weights(start)
        optimizer = build_optimizer(name, model, 0.01, weight_decay=0.0)
        before = {weight.path: np.array(weight) for weight in model.trainable_weights}
        for gradients in steps:
            optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients])
        return {weight.path: np.array(weight) - before[weight.path] for weight in model.trainable_weights}

    adamw, muon = updates("adamw"), updates("muon")
    for weight, gradients in zip(model.trainable_weights, zip(*steps, strict=True), strict=True):
        path, parts = weight.path, 3 if "/qkv/" in weight.path else 1
        if "block_" not in path or not path.endswith("kernel"):
            np.testing.assert_allclose(muon[path], adamw[path], atol=1e-6)
            continue
        for number, update in enumerate(np.split(muon[path], parts, axis=1)):
            momentum, expected = 0.0, 0.0
            for gradient in (np.split(whole, parts, axis=1)[number] for whole in gradients):
                momentum = 0.95 * momentum + 0.05 * gradient
                ahead = 0.95 * momentum + 0.05 * gradient
                expected -= 0.01 * 0.2 * max(gradient.shape) ** 0.5 * np.array(orthogonalize(ahead[None]))[0]
            np.testing.assert_allclose(update, expected, atol=1e-5, err_msg=path)

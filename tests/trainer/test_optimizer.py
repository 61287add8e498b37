import keras
import numpy as np
import pytest

from trainer.optimizer import WarmupCosine, build_optimizer, orthogonalized
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
    optimizer = build_optimizer("adamw", model, 0.1, weight_decay=0.5)
    optimizer.apply([keras.ops.zeros(weight.shape) for weight in model.trainable_weights])
    shrunk = {weight.name for weight in model.trainable_weights if np.array(weight).max() < 1}
    kept = {weight.name for weight in model.trainable_weights if np.array(weight).max() == 1}
    assert shrunk == {"kernel"}
    assert kept == {"bias", "gamma", "beta", "cls", "positions"}


@pytest.mark.parametrize("shape", [(3, 16, 48), (3, 48, 16)])
def test_an_orthogonalized_matrix_has_the_directions_of_the_given_one_at_nearly_equal_length(shape):
    matrices = np.random.default_rng(0).normal(size=shape).astype("float32")
    result = np.array(orthogonalized(matrices))
    singular_values = np.linalg.svd(result, compute_uv=False)
    assert 0.6 < singular_values.min() < singular_values.max() < 1.3
    left, _, right = np.linalg.svd(matrices, full_matrices=False)
    np.testing.assert_allclose(result, left @ right, atol=0.15)


def test_muon_updates_each_matrix_of_the_blocks_for_itself_and_all_else_as_adamw():
    model = ViT(image_size=8, depth=2, width=16, heads=2)
    gradients = [np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(model.trainable_weights)]
    start = model.get_weights()

    def updates(name):
        model.set_weights(start)
        before = {weight.path: np.array(weight) for weight in model.trainable_weights}
        build_optimizer(name, model, 0.01, weight_decay=0.0).apply(
            [keras.ops.convert_to_tensor(gradient, "float32") for gradient in gradients]
        )
        return {weight.path: np.array(weight) - before[weight.path] for weight in model.trainable_weights}

    adamw, muon = updates("adamw"), updates("muon")
    by_path = dict(zip((weight.path for weight in model.trainable_weights), gradients, strict=True))
    for path, update in muon.items():
        if "block_" not in path or not path.endswith("kernel"):
            np.testing.assert_allclose(update, adamw[path], atol=1e-6)
            continue
        parts = 3 if "/qkv/" in path else 1
        pairs = zip(np.split(update, parts, axis=1), np.split(by_path[path], parts, axis=1), strict=True)
        for part, gradient in pairs:
            expected = -0.01 * 0.2 * max(part.shape) ** 0.5 * np.array(orthogonalized(gradient[None]))[0]
            np.testing.assert_allclose(part, expected, atol=1e-5)

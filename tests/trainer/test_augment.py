import functools
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.augment import augment, crop, draws_per_image, erase, flip, mix
from trainer.settings import AugmentSettings

NOTHING = AugmentSettings(crop_padding=0, flip=False, randaugment_ops=0, mixup=0, cutmix=0, erase=0)
RECIPE = AugmentSettings()


def batch(count=64, height=8, width=8):
    """Images in which hardly a pixel is like another, one-hot targets, draws."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, height, width, 3), "uint8")
    targets = np.eye(5, dtype="float32")[rng.integers(0, 5, count)]
    return images, targets, rng.random((count, draws_per_image(RECIPE)), "float32")


def uniform(*shape):
    return np.random.default_rng(2).random(shape, "float32")


def grid(columns, points=4):
    """Every combination of `points` evenly spaced numbers, as draws [points**columns, columns]."""
    axis = (np.arange(points, dtype="float32") + 0.5) / points
    return np.stack(np.meshgrid(*[axis] * columns, indexing="ij"), axis=-1).reshape(-1, columns)


def test_crop_is_a_window_of_the_padded_image_and_all_windows_are_as_likely():
    padding = 2
    images = np.repeat(batch(1, 6, 8)[0], 25, axis=0)
    out = np.array(crop(images, grid(2, points=5), padding))
    padded = np.pad(images[0], [(padding, padding), (padding, padding), (0, 0)])
    corners = [(y, x) for y in range(5) for x in range(5)]
    np.testing.assert_array_equal(out, [padded[y : y + 6, x : x + 8] for y, x in corners])


def test_flip_mirrors_half_of_the_images_and_leaves_the_others():
    images = batch(2)[0]
    out = np.array(flip(images, np.float32([0.49, 0.5])))
    np.testing.assert_array_equal(out, [images[0, :, ::-1], images[1]])


def erased(count=20_000, probability=0.25, height=24, width=24):
    """Where each of black images was erased, and the images."""
    images = np.full((count, height, width, 3), -1, "float32")
    out = np.array(erase(images, uniform(count, 8), probability))
    return (out >= 0).all(axis=-1), out


def test_erasing_fills_one_rectangle_with_one_colour_and_leaves_the_rest():
    gone, out = erased(500, probability=1.0)
    for mask, image in zip(gone, out, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert len(np.unique(image[mask], axis=0)) == 1
        assert (image[~mask] == -1).all()
    colours = np.array([image[mask][0] for mask, image in zip(gone, out, strict=True)])
    assert colours.min() < 5 and colours.max() > 250 and abs(colours.mean() - 127.5) < 8
    np.testing.assert_array_equal(colours, np.floor(colours))


def test_erasing_has_its_probability_area_and_shape():
    gone, _ = erased()
    happened = gone.any(axis=(1, 2))
    assert abs(happened.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(gone))
    gone = gone[happened]
    share = gone.mean(axis=(1, 2))
    assert 0.01 < share.min() < 0.03 and 0.32 < share.max() < 0.36
    assert abs(share.mean() - (0.02 + 1 / 3) / 2) < 0.005  # evenly distributed
    height, width = gone.any(axis=2).sum(axis=1), gone.any(axis=1).sum(axis=1)
    aspect = np.log(height / width)
    assert abs(np.median(aspect)) < 0.05 and np.abs(aspect).max() < math.log(10 / 3) + 0.5
    assert abs(np.quantile(aspect, 0.75) - math.log(10 / 3) / 2) < 0.06
    where = gone.mean(axis=0)
    np.testing.assert_allclose(where, where[::-1, ::-1], atol=0.04)  # no side is preferred
    assert where[0, 0] > 0.002  # and corners are reached


def test_mixup_is_the_weighted_mean_of_neighbours():
    images, targets, _ = batch(6)
    draws = uniform(6, 4)
    mixed, mixed_targets = (np.array(x) for x in mix(images.astype("float32"), targets, draws, mixup=1.0, cutmix=0.0))
    share = draws[:, 1]  # Beta(1, 1) is uniform
    partner = [1, 0, 3, 2, 5, 4]
    weight = share[:, None, None, None]
    np.testing.assert_allclose(mixed, weight * images + (1 - weight) * images[partner], atol=1e-3)
    weight = share[:, None]
    np.testing.assert_allclose(mixed_targets, weight * targets + (1 - weight) * targets[partner], atol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 3.0])
def test_mixup_shares_come_from_the_beta_distribution(alpha):
    count = 40_000
    targets = np.tile(np.eye(2, dtype="float32"), (count // 2, 1))
    draws = uniform(count, 4)
    mixed = np.array(mix(np.zeros((count, 1, 1, 3), "float32"), targets, draws, alpha, 0.0)[1])
    share = mixed[targets == 1]
    wanted = np.random.default_rng(3).beta(alpha, alpha, 400_000)
    for quantile in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95):
        assert abs(np.quantile(share, quantile) - np.quantile(wanted, quantile)) < 0.012
    assert abs(share.var() - 1 / (4 * (2 * alpha + 1))) < 0.003


def test_cutmix_pastes_a_rectangle_of_the_neighbour_and_targets_go_by_its_area():
    images, targets = np.zeros((2000, 8, 12, 3), "float32"), np.tile(np.eye(2, dtype="float32"), (1000, 1))
    images[1::2] = 200
    draws = uniform(2000, 4)
    mixed, mixed_targets = (np.array(x) for x in mix(images, targets, draws, mixup=0.0, cutmix=1.0))
    pasted = (mixed != images).all(axis=-1)
    assert set(np.unique(mixed)) == {0, 200}
    for mask, (_, share, y, x) in zip(pasted, draws, strict=True):
        half_height, half_width = int(8 * math.sqrt(1 - share)) // 2, int(12 * math.sqrt(1 - share)) // 2
        middle_y, middle_x = int(y * 8), int(x * 12)
        wanted = np.zeros((8, 12), bool)
        wanted[
            max(middle_y - half_height, 0) : middle_y + half_height,
            max(middle_x - half_width, 0) : middle_x + half_width,
        ] = True
        np.testing.assert_array_equal(mask, wanted)
    np.testing.assert_allclose(mixed_targets[targets == 1], 1 - pasted.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)


def test_with_both_each_image_takes_mixup_or_cutmix_at_even_odds():
    count = 10_000
    images = np.zeros((count, 4, 4, 3), "float32")
    images[1::2] = 200
    mixed = np.array(mix(images, np.zeros((count, 2), "float32"), uniform(count, 4), 1.0, 1.0)[0])
    cut = np.isin(mixed, (0, 200)).all(axis=(1, 2, 3))
    assert abs(cut.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)


def test_images_are_mixed_with_the_given_probability_by_mixup_or_cutmix_at_even_odds():
    count = 10_000
    images = np.zeros((count, 4, 4, 3), "float32")
    images[1::2] = 200
    targets = np.tile(np.eye(2, dtype="float32"), (count // 2, 1))
    mixed, mixed_targets = (
        np.array(x) for x in mix(images, targets, uniform(count, 4), mixup=1.0, cutmix=1.0, probability=0.3)
    )
    changed = (mixed_targets != targets).any(axis=1)
    assert (mixed[~changed] == images[~changed]).all()
    # Some of CutMix' rectangles are empty: those whose sides round to zero.
    assert 0.3 * 0.85 < changed.mean() < 0.31
    blended = ~np.isin(mixed, (0, 200)).all(axis=(1, 2, 3))
    assert abs(blended.mean() - 0.15) < 4 * math.sqrt(0.15 * 0.85 / count)


def test_augment_mixes_with_the_probability_of_the_settings():
    images, targets, draws = batch()
    mixing = NOTHING.model_copy(update={"mixup": 1.0, "cutmix": 1.0, "mixing_probability": 0.0})
    out, out_targets = augment(images, targets, draws, mixing, 1.0)
    np.testing.assert_array_equal(np.array(out), images)
    np.testing.assert_array_equal(np.array(out_targets), targets)


def test_nothing_set_is_nothing_done():
    images, targets, draws = batch()
    out, out_targets = augment(images, targets, draws, NOTHING, 1.0)
    np.testing.assert_array_equal(out, images)
    np.testing.assert_array_equal(out_targets, targets)
    assert np.array(out).dtype == np.float32


def test_mixing_is_switched_by_a_value():
    images, targets, draws = batch()
    settings = NOTHING.model_copy(update={"mixup": 0.8, "cutmix": 1.0})
    compiled = tf.function(lambda mixing: augment(images, targets, draws, settings, mixing), jit_compile=True)
    out, out_targets = compiled(tf.constant(0.0))
    np.testing.assert_array_equal(out, images)
    np.testing.assert_array_equal(out_targets, targets)
    out, out_targets = compiled(tf.constant(1.0))
    assert (np.array(out) != images).any(axis=(1, 2, 3)).mean() > 0.8
    np.testing.assert_allclose(np.sum(out_targets, axis=1), 1, atol=1e-6)
    assert compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_without_a_branch_the_result_is_the_same(mixing):
    images, targets, draws = batch()
    settings = NOTHING.model_copy(update={"mixup": 0.8, "cutmix": 1.0, "erase": 0.5})
    expected = augment(images, targets, draws, settings, mixing)
    for ours, theirs in zip(augment(images, targets, draws, settings, mixing, branch=False), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_two_parts_use_the_same_draw():
    """A part that is turned off leaves the others as they were, and none depends on another."""
    images, targets, draws = batch(32)
    draws = draws[:, : draws_per_image(RECIPE.model_copy(update={"randaugment_ops": 1}))]
    parts = [{"crop_padding": 4}, {"flip": True}, {"randaugment_ops": 1}, {"erase": 0.5}, {"mixup": 1.0, "cutmix": 1.0}]
    used = []
    for part in parts:
        run = functools.partial(augment, images, targets, settings=NOTHING.model_copy(update=part), mixing=1.0)
        before = np.array(run(draws=draws)[0])
        for column in range(draws.shape[1]):
            other = draws.copy()
            other[:, column] = 1 - other[:, column]
            if (np.array(run(draws=other)[0]) != before).any():
                used.append(column)
    assert sorted(used) == list(range(draws.shape[1]))


def test_images_stay_in_range_and_each_goes_its_own_way():
    one = batch(1, 16, 16)[0]
    images, targets, draws = np.repeat(one, 200, axis=0), np.ones((200, 1), "float32"), batch(200)[2]
    out = np.array(augment(images, targets, draws, RECIPE, 1.0)[0])
    assert out.dtype == np.float32 and out.shape == images.shape
    assert out.min() >= 0 and out.max() <= 255
    assert len({image.tobytes() for image in out}) > 190


def test_a_split_batch_gives_the_same_images():
    images, targets, draws = batch(12)
    whole = augment(images, targets, draws, RECIPE, 1.0)
    parts = [augment(images[at], targets[at], draws[at], RECIPE, 1.0) for at in (slice(0, 4), slice(4, 12))]
    for all_rows, *split in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(all_rows, np.concatenate(split))


def close(images, others):
    """Equal to within a rounding error, but for a few pixels that it takes to the next whole number."""
    difference = np.abs(np.array(images) - np.array(others))
    return difference.max() < 1.01 and (difference > 1e-3).mean() < 1e-3


def test_compiled_for_any_number_of_images_it_is_the_same():
    images, targets, draws = batch(64, 24, 24)
    signature = [tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (images, targets, draws)]
    compiled = tf.function(lambda *rows: augment(*rows, RECIPE, 1.0), input_signature=signature, jit_compile=True)
    for count in (64, 10):
        out, out_targets = compiled(images[:count], targets[:count], draws[:count])
        eager, eager_targets = augment(images[:count], targets[:count], draws[:count], RECIPE, 1.0)
        assert close(out, eager)
        np.testing.assert_allclose(out_targets, eager_targets, atol=1e-5)


JAX = """
import sys
import jax, numpy as np
from trainer.augment import augment
from trainer.settings import AugmentSettings
rows = np.load(sys.argv[1])
compiled = jax.jit(lambda *rows: augment(*rows, AugmentSettings(), 1.0))
images, targets = compiled(rows["images"], rows["targets"], rows["draws"])
assert "tensorflow" not in sys.modules
np.savez(sys.argv[2], images=images, targets=targets)
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_on_jax_it_is_the_same(tmp_path):
    images, targets, draws = batch(64, 24, 24)
    np.savez(tmp_path / "in.npz", images=images, targets=targets, draws=draws)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run(
        [sys.executable, "-c", JAX, tmp_path / "in.npz", tmp_path / "out.npz"],
        cwd=Path(__file__).parents[2],
        env=environment,
        check=True,
        timeout=300,
    )
    out = np.load(tmp_path / "out.npz")
    wanted, wanted_targets = augment(images, targets, draws, RECIPE, 1.0)
    assert close(out["images"], wanted)
    np.testing.assert_allclose(out["targets"], wanted_targets, atol=1e-5)

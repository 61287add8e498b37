import functools
import importlib.util
import math
import operator
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from trainer import randaugment
from trainer.augment import (
    augment,
    crop,
    crop_boxes,
    draws_per_image,
    erase,
    flip,
    jitter_colours,
    mix,
    resize,
    three_augment,
)
from trainer.settings import AugmentSettings

NOTHING = AugmentSettings(crop_padding=0, flip=False, randaugment_ops=0, mixup=0, cutmix=0, erase=0)
RECIPE = AugmentSettings()
PHOTOGRAPHS = AugmentSettings(
    crop_padding=0,
    resized_crop_scale=(0.08, 1.0),
    three_augment=True,
    colour_jitter=0.3,
    randaugment_ops=0,
    erase=0,
)


def batch(count=64, height=8, width=8):
    """Return images of almost unique pixels, one-hot targets and random numbers."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, height, width, 3), "uint8")
    targets = np.eye(5, dtype="float32")[rng.integers(0, 5, count)]
    columns = max(draws_per_image(RECIPE), draws_per_image(PHOTOGRAPHS))
    return images, targets, rng.random((count, columns), "float32")


def uniform(*shape):
    return np.random.default_rng(2).random(shape, "float32")


def grid(columns, points=4):
    """Return every combination of `points` evenly spaced numbers, [points**columns, columns]."""
    axis = (np.arange(points, dtype="float32") + 0.5) / points
    return np.stack(np.meshgrid(*[axis] * columns, indexing="ij"), axis=-1).reshape(-1, columns)


def test_crop_is_a_window_of_the_padded_image_and_all_windows_are_equally_likely():
    padding = 2
    images = np.repeat(batch(1, 6, 8)[0], 25, axis=0)
    out = np.array(crop(images, grid(2, points=5), padding))
    padded = np.pad(images[0], [(padding, padding), (padding, padding), (0, 0)])
    corners = [(y, x) for y in range(5) for x in range(5)]
    np.testing.assert_array_equal(out, [padded[y : y + 6, x : x + 8] for y, x in corners])


def test_flip_mirrors_half_of_the_images():
    images = batch(2)[0]
    out = np.array(flip(images, np.float32([0.49, 0.5])))
    np.testing.assert_array_equal(out, [images[0, :, ::-1], images[1]])


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (1 / 3, 2.0)), ((0.3, 1.0), (1.0, 1.0)), ((1.0, 1.0), (0.5, 2.0))],
)
def test_resized_crops_are_distributed_as_if_drawn_until_they_fit(scale, ratio):
    count, side = 100_000, 64
    left, top, right, bottom = (np.array(edge) / side for edge in crop_boxes(uniform(count, 4), side, scale, ratio))
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 1 + 1e-6
    width, height = right - left, bottom - top

    rng = np.random.default_rng(5)
    area = rng.uniform(*scale, 10 * count)
    aspect = np.exp(rng.uniform(*np.log(ratio), 10 * count))
    fits = (area * aspect <= 1) & (area / aspect <= 1)
    if scale[0] == scale[1]:  # only the whole image fits, which random numbers never hit
        area, aspect, fits = np.ones(1), np.ones(1), [True]
    for found, wanted in (width * height, area[fits]), (np.log(width / height), np.log(aspect[fits])):
        for quantile in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
            assert abs(np.quantile(found, quantile) - np.quantile(wanted, quantile)) < 0.01
    for start, room in (left, 1 - width), (top, 1 - height):
        roomy = room > 0.05
        if roomy.any():
            share = start[roomy] / room[roomy]
            assert share.min() < 0.001 and share.max() > 0.999 and abs(share.mean() - 0.5) < 0.01


@pytest.mark.parametrize(("side", "size"), [(64, 56), (32, 32), (96, 20), (20, 48)])
def test_resized_crops_agree_with_pillow(side, size):
    images = np.random.default_rng(0).integers(0, 256, (32, side, side, 3), "uint8")
    boxes = [np.array(edge) for edge in crop_boxes(uniform(32, 4), side, (0.08, 1.0), (3 / 4, 4 / 3))]
    out = np.array(resize(images.astype("float32"), boxes, size))
    wanted = [
        Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=tuple(map(float, box)))
        for image, box in zip(images, zip(*boxes, strict=True), strict=True)
    ]
    difference = np.abs(out - np.array([np.array(image) for image in wanted], "float32"))
    assert difference.max() <= 1 and (difference > 0).mean() < 2e-3
    np.testing.assert_array_equal(out, np.round(out))


def test_the_whole_image_as_a_crop_is_the_image():
    images = batch(2, 16, 16)[0].astype("float32")
    edges = np.zeros(2, "float32"), np.zeros(2, "float32"), np.full(2, 16, "float32"), np.full(2, 16, "float32")
    np.testing.assert_array_equal(resize(images, edges, 16), images)


def test_three_augment_makes_each_image_grey_or_solarizes_or_blurs_it():
    images = np.repeat(batch(1, 16, 16)[0], 6, axis=0)
    choice = np.float32([0.0, 0.33, 0.34, 0.66, 0.67, 0.999])
    out = np.array(three_augment(images.astype("float32"), np.stack([choice, np.float32([0.5] * 6)], axis=1)))
    image = Image.fromarray(images[0])
    grey, solarized = (
        np.array(changed.convert("RGB")) for changed in (ImageOps.grayscale(image), ImageOps.solarize(image))
    )
    blurred = np.array(randaugment.gaussian_blur(images[:1].astype("float32"), np.float32([1.05]), 2.0))[0]
    np.testing.assert_array_equal(out, [grey, grey, solarized, solarized, blurred, blurred])


def test_colour_jitter_agrees_with_pillow():
    images = np.random.default_rng(0).integers(0, 256, (32, 24, 24, 3), "uint8")
    images[16:] = images[16:] // 3 + 60
    draws = uniform(32, 3)
    out = np.array(jitter_colours(images.astype("float32"), draws, 0.4))
    wanted = []
    for image, (brightness, contrast, saturation) in zip(images, 0.6 + 0.8 * draws.astype(float), strict=True):
        changed = ImageEnhance.Brightness(Image.fromarray(image)).enhance(brightness)
        changed = ImageEnhance.Contrast(changed).enhance(contrast)
        wanted.append(np.array(ImageEnhance.Color(changed).enhance(saturation)))
    difference = np.abs(out - np.array(wanted, "float32"))
    # Each step may differ by one grey level, which later steps amplify.
    assert difference.max() <= 3 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("column", range(3), ids=["brightness", "contrast", "saturation"])
def test_factors_of_colour_jitter_are_uniform(column):
    count = 20_000
    images = np.tile(np.float32([[[50, 100, 150]], [[150, 100, 50]]]), (count, 1, 1, 1))
    draws = np.full((count, 3), 0.5, "float32")
    draws[:, column] = uniform(count)
    out = np.array(jitter_colours(images, draws, 0.4))
    factor = (out[:, 0, 0, 2] - out[:, 0, 0, 0]) / 100
    for quantile in (0.01, 0.25, 0.5, 0.75, 0.99):
        assert abs(np.quantile(factor, quantile) - (0.6 + 0.8 * quantile)) < 0.015


def erased(count=20_000, probability=0.25, height=24, width=24):
    """Erase black images, and return a mask of the erased pixels and the images."""
    images = np.full((count, height, width, 3), -1, "float32")
    out = np.array(erase(images, uniform(count, 8), probability))
    return (out >= 0).all(axis=-1), out


def test_erasing_fills_one_rectangle_with_one_colour():
    gone, out = erased(500, probability=1.0)
    for mask, image in zip(gone, out, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert len(np.unique(image[mask], axis=0)) == 1
        assert (image[~mask] == -1).all()
    colours = np.array([image[mask][0] for mask, image in zip(gone, out, strict=True)])
    assert colours.min() < 5 and colours.max() > 250 and abs(colours.mean() - 127.5) < 8
    np.testing.assert_array_equal(colours, np.floor(colours))


def test_probability_area_and_shape_of_erasing():
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
    np.testing.assert_allclose(where, where[::-1, ::-1], atol=0.04)  # both sides are equally likely
    assert where[0, 0] > 0.002  # corners are erased, too


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


def test_cutmix_pastes_a_rectangle_of_the_neighbour_and_mixes_targets_by_its_area():
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


def test_mixup_and_cutmix_are_equally_likely_if_both_are_on():
    count = 10_000
    images = np.zeros((count, 4, 4, 3), "float32")
    images[1::2] = 200
    mixed = np.array(mix(images, np.zeros((count, 2), "float32"), uniform(count, 4), 1.0, 1.0)[0])
    cut = np.isin(mixed, (0, 200)).all(axis=(1, 2, 3))
    assert abs(cut.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)


def test_images_are_mixed_with_the_given_probability():
    count = 10_000
    images = np.zeros((count, 4, 4, 3), "float32")
    images[1::2] = 200
    targets = np.tile(np.eye(2, dtype="float32"), (count // 2, 1))
    mixed, mixed_targets = (
        np.array(x) for x in mix(images, targets, uniform(count, 4), mixup=1.0, cutmix=1.0, probability=0.3)
    )
    changed = (mixed_targets != targets).any(axis=1)
    assert (mixed[~changed] == images[~changed]).all()
    # Rectangles of CutMix are empty if their sides are rounded to zero.
    assert 0.3 * 0.85 < changed.mean() < 0.31
    blended = ~np.isin(mixed, (0, 200)).all(axis=(1, 2, 3))
    assert abs(blended.mean() - 0.15) < 4 * math.sqrt(0.15 * 0.85 / count)


def test_augment_mixes_with_the_probability_of_the_settings():
    images, targets, draws = batch()
    mixing = NOTHING.model_copy(update={"mixup": 1.0, "cutmix": 1.0, "mixing_probability": 0.0})
    out, out_targets = augment(images, targets, draws, mixing, 8, 1.0)
    np.testing.assert_array_equal(np.array(out), images)
    np.testing.assert_array_equal(np.array(out_targets), targets)


def test_images_are_unchanged_if_everything_is_off():
    images, targets, draws = batch()
    out, out_targets = augment(images, targets, draws, NOTHING, 8, 1.0)
    np.testing.assert_array_equal(out, images)
    np.testing.assert_array_equal(out_targets, targets)
    assert np.array(out).dtype == np.float32


def test_a_recipe_without_augmentations_for_photographs_makes_the_same_images_as_before_their_introduction():
    generator = np.random.default_rng(7)
    images, targets = generator.integers(0, 256, (8, 16, 16, 3), "uint8"), np.eye(8, dtype="float32")
    draws = generator.random((8, 23), "float32")
    weights = generator.random((16, 16, 3))
    assert draws_per_image(RECIPE) == 23
    assert draws_per_image(NOTHING) == 15
    plain, _ = augment(images, targets, draws, RECIPE, 16, 0.0)
    mixed, mixed_targets = augment(images, targets, draws, RECIPE, 16, 1.0)
    # Computed by the last version that had neither resized crops nor colour jitter.
    plain_sums = [50.105, 51.76, 36.456, 49.135, 53.123, 52.281, 46.774, 44.549]
    mixed_sums = [50.941, 52.202, 35.857, 43.087, 53.986, 52.823, 46.684, 44.549]
    shares = [0.5051, 0.6836, 0.8594, 0.7891, 0.8594, 0.6438, 0.9593, 1.0]
    np.testing.assert_allclose((np.array(plain) * weights).mean((1, 2, 3)), plain_sums, atol=5e-3)
    np.testing.assert_allclose((np.array(mixed) * weights).mean((1, 2, 3)), mixed_sums, atol=5e-3)
    np.testing.assert_allclose(np.max(mixed_targets, axis=1), shares, atol=2e-4)


def test_the_recipe_for_photographs_crops_flips_changes_colours_and_then_mixes():
    images, targets, draws = batch(16, 24, 24)
    out, out_targets = augment(images, targets, draws, PHOTOGRAPHS, 16, 1.0)
    late = draws[:, 15:24]
    step = resize(images.astype("float32"), crop_boxes(late[:, :4], 24, (0.08, 1.0), (3 / 4, 4 / 3)), 16)
    step = three_augment(flip(step, draws[:, 2]), late[:, 4:6])
    wanted, wanted_targets = mix(jitter_colours(step, late[:, 6:9], 0.3), targets, draws[:, 11:15], 0.8, 1.0)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(out_targets, wanted_targets)
    assert out.shape == (16, 16, 16, 3)


def test_without_resized_crops_images_of_another_size_are_rejected():
    images, targets, draws = batch(4, 24, 24)
    with pytest.raises(
        ValueError, match=r"24 x 24 pixels, but the model takes 16 x 16: set augment.resized_crop_scale"
    ):
        augment(images, targets, draws, RECIPE, 16, 1.0)


def test_mixing_can_be_switched_in_a_compiled_function():
    images, targets, draws = batch()
    settings = NOTHING.model_copy(update={"mixup": 0.8, "cutmix": 1.0})
    compiled = tf.function(lambda mixing: augment(images, targets, draws, settings, 8, mixing), jit_compile=True)
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
    expected = augment(images, targets, draws, settings, 8, mixing)
    for ours, theirs in zip(augment(images, targets, draws, settings, 8, mixing, branch=False), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_two_augmentations_use_the_same_random_number():
    """Turning one augmentation off does not change the results of the others."""
    images, targets, _ = batch(32)
    parts = [
        {"crop_padding": 4},
        {"resized_crop_scale": (0.08, 1.0)},
        {"flip": True},
        {"randaugment_ops": 1},
        {"three_augment": True},
        {"colour_jitter": 0.5},
        {"erase": 0.5},
        {"mixup": 1.0, "cutmix": 1.0},
    ]
    everything = NOTHING.model_copy(update=functools.reduce(operator.or_, parts))
    draws = uniform(32, draws_per_image(everything))
    used = []
    for part in parts:
        # The number of columns of RandAugment decides where later columns begin, so it is on in all recipes.
        part = {"randaugment_ops": 1, "randaugment_probability": 0.5 if "randaugment_ops" in part else 0.0} | part
        run = functools.partial(augment, images, targets, settings=NOTHING.model_copy(update=part), size=8, mixing=1.0)
        before = np.array(run(draws=draws)[0])
        for column in range(draws.shape[1]):
            other = draws.copy()
            other[:, column] = 1 - other[:, column]
            if (np.array(run(draws=other)[0]) != before).any():
                used.append(column)
    assert sorted(used) == list(range(draws.shape[1]))


def test_images_stay_in_range_and_are_augmented_differently():
    one = batch(1, 16, 16)[0]
    images, targets, draws = np.repeat(one, 200, axis=0), np.ones((200, 1), "float32"), batch(200)[2]
    out = np.array(augment(images, targets, draws, RECIPE, 16, 1.0)[0])
    assert out.dtype == np.float32 and out.shape == images.shape
    assert out.min() >= 0 and out.max() <= 255
    assert len({image.tobytes() for image in out}) > 190


@pytest.mark.parametrize("recipe", [RECIPE, PHOTOGRAPHS])
def test_a_split_batch_gives_the_same_images(recipe):
    images, targets, draws = batch(12)
    whole = augment(images, targets, draws, recipe, 8, 1.0)
    parts = [augment(images[at], targets[at], draws[at], recipe, 8, 1.0) for at in (slice(0, 4), slice(4, 12))]
    for all_rows, *split in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(all_rows, np.concatenate(split))


def close(images, others, levels):
    """Return whether images are equal within rounding errors, except for a few pixels that differ by some grey levels.

    These are pixels that were rounded to the next whole number. Colour jitter amplifies their difference.
    """
    difference = np.abs(np.array(images) - np.array(others))
    return difference.max() < levels + 0.01 and (difference > 1e-3).mean() < 1e-3


@pytest.mark.parametrize(("recipe", "levels"), [(RECIPE, 1), (PHOTOGRAPHS, 3)])
def test_a_compiled_function_for_any_number_of_images_gives_the_same_images(recipe, levels):
    images, targets, draws = batch(64, 24, 24)
    signature = [tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (images, targets, draws)]
    compiled = tf.function(lambda *rows: augment(*rows, recipe, 24, 1.0), input_signature=signature, jit_compile=True)
    for count in (64, 10):
        out, out_targets = compiled(images[:count], targets[:count], draws[:count])
        eager, eager_targets = augment(images[:count], targets[:count], draws[:count], recipe, 24, 1.0)
        assert close(out, eager, levels)
        np.testing.assert_allclose(out_targets, eager_targets, atol=1e-5)


JAX = """
import sys
import jax, numpy as np
from trainer.augment import augment
from trainer.settings import AugmentSettings
rows = np.load(sys.argv[1])
recipe = AugmentSettings.model_validate_json(sys.argv[3])
compiled = jax.jit(lambda *rows: augment(*rows, recipe, 24, 1.0))
images, targets = compiled(rows["images"], rows["targets"], rows["draws"])
assert "tensorflow" not in sys.modules
np.savez(sys.argv[2], images=images, targets=targets)
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.parametrize(("recipe", "levels"), [(RECIPE, 1), (PHOTOGRAPHS, 3)])
def test_jax_gives_the_same_images(recipe, levels, tmp_path):
    images, targets, draws = batch(64, 24, 24)
    np.savez(tmp_path / "in.npz", images=images, targets=targets, draws=draws)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run(
        [sys.executable, "-c", JAX, tmp_path / "in.npz", tmp_path / "out.npz", recipe.model_dump_json()],
        cwd=Path(__file__).parents[2],
        env=environment,
        check=True,
        timeout=300,
    )
    out = np.load(tmp_path / "out.npz")
    wanted, wanted_targets = augment(images, targets, draws, recipe, 24, 1.0)
    assert close(out["images"], wanted, levels)
    np.testing.assert_allclose(out["targets"], wanted_targets, atol=1e-5)

import keras
import numpy as np

from trainer.augment import Augment, random_crop, random_flip


def batch(count=64):
    """Images in which every pixel is its own value."""
    return np.random.default_rng(0).integers(1, 256, (count, 8, 8, 3), "uint8")


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    images = batch(256)
    out = np.array(random_flip(images, seed=1))
    mirrored = (out == images[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (out == images).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 90 < mirrored.sum() < 166  # 128 expected, 8 is one standard deviation


def test_crop_is_a_window_of_the_padded_image_of_its_own_for_each():
    images, padding = batch(), 2
    out = np.array(random_crop(images, padding, seed=1))
    assert out.dtype == images.dtype
    padded = np.pad(images, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    corners = set()
    for image, field in zip(out, padded, strict=True):
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(image, field[y : y + 8, x : x + 8])]
        assert len(found) == 1
        corners.update(found)
    assert len(corners) > 15  # of 25


def test_augment_does_nothing_outside_training():
    images, layer = batch(), Augment(crop_padding=2, flip=True, seed=1)
    np.testing.assert_array_equal(layer(images, training=False), images)
    assert not np.array_equal(layer(images, training=True), images)


def test_a_seed_repeats_and_goes_on():
    images = batch()
    first, second = (Augment(crop_padding=2, flip=True, seed=3) for _ in range(2))
    one = np.array(first(images, training=True))
    np.testing.assert_array_equal(second(images, training=True), one)
    assert not np.array_equal(first(images, training=True), one)


def test_pixels_keep_their_type_under_mixed_precision():
    with_policy = Augment(2, True, 1, dtype=keras.DTypePolicy("mixed_bfloat16"))
    assert keras.backend.standardize_dtype(with_policy(batch(), training=True).dtype) == "uint8"

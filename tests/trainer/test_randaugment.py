"""Every operation compared with Pillow, and the distribution of the random choices."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter

from trainer import randaugment
from trainer.randaugment import DRAWS, OPERATIONS, gaussian_blur, transform

HEIGHT, WIDTH = 24, 32  # Pillow's equalize needs enough pixels
LEVELS = [0.0, 0.05, 0.3, 0.5, 0.77, 0.9, 1.0]
EXACT = {"Equalize", "Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd"}


def pictures():
    """uint8 [6, HEIGHT, WIDTH, 3]: noise, a dark and a narrow range, two values, one value, a gradient."""
    rng = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH, 3)
    gradient = np.add.outer(np.arange(HEIGHT) * 5, np.arange(WIDTH) * 3)[..., None] + np.array([0, 20, 35])
    return np.stack(
        [
            rng.integers(0, 256, shape),
            rng.integers(0, 60, shape) ** 2 // 40,
            rng.integers(100, 131, shape),
            rng.integers(0, 2, shape) * 200 + 30,
            np.full(shape, 77),
            gradient,
        ]
    ).astype("uint8")


def pillow(name, image, level, sign):
    """Apply an operation to a Pillow image as timm does."""
    factor = max(0.1, 1 + sign * level * 0.9)

    grey = (128, 128, 128)
    width, height = image.size

    def affine(*matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=grey)

    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Rotate":
            return image.rotate(sign * level * 30, Image.Resampling.BILINEAR, fillcolor=grey)
        case "PosterizeIncreasing":
            return ImageOps.posterize(image, 4 - int(level * 4))
        case "SolarizeIncreasing":
            return ImageOps.solarize(image, 256 - int(level * 256))
        case "SolarizeAdd":
            return image.point([min(255, x + int(level * 110)) if x < 128 else x for x in range(256)] * 3)
        case "ColorIncreasing":
            return ImageEnhance.Color(image).enhance(factor)
        case "ContrastIncreasing":
            return ImageEnhance.Contrast(image).enhance(factor)
        case "BrightnessIncreasing":
            return ImageEnhance.Brightness(image).enhance(factor)
        case "SharpnessIncreasing":
            return ImageEnhance.Sharpness(image).enhance(factor)
        case "ShearX":
            return affine(1, sign * level * 0.3, 0, 0, 1, 0)
        case "ShearY":
            return affine(1, 0, 0, sign * level * 0.3, 1, 0)
        case "TranslateXRel":
            return affine(1, 0, sign * level * 0.45 * width, 0, 1, 0)
        case "TranslateYRel":
            return affine(1, 0, 0, 0, 1, sign * level * 0.45 * height)


@pytest.fixture(scope="module")
def ours():
    """Results of `transform` for all combinations: [operations, images, levels, signs, height, width, 3]."""
    images = pictures().astype("float32")
    grid = np.meshgrid(np.arange(len(OPERATIONS)), np.arange(len(images)), LEVELS, [-1, 1], indexing="ij")
    operation, image, level, sign = (axis.ravel() for axis in grid)
    out = transform(images[image], operation.astype("int32"), level.astype("float32"), sign.astype("float32"))
    return np.array(out).reshape(*grid[0].shape, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("index", range(len(OPERATIONS)), ids=OPERATIONS)
def test_every_operation_agrees_with_pillow(index, ours):
    name = OPERATIONS[index]
    wanted = [
        [[np.array(pillow(name, Image.fromarray(image), level, sign)) for sign in (-1, 1)] for level in LEVELS]
        for image in pictures()
    ]
    difference = np.abs(ours[index] - np.array(wanted, "float32"))
    assert difference.max() <= (0 if name in EXACT else 1)
    assert (difference > 0).mean() < 0.04
    np.testing.assert_array_equal(ours[index], np.round(ours[index]))


SIGMAS = np.float32([0.1, 0.5, 1.0, 1.5, 1.8, 2.0])  # one for each picture


def test_the_blur_agrees_with_scipy():
    images = pictures()
    out = np.array(gaussian_blur(images.astype("float32"), SIGMAS, 2.0))
    wanted = [
        gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest")
        for image, sigma in zip(images, SIGMAS, strict=True)
    ]
    difference = np.abs(out - np.floor(np.array(wanted) + 0.5))
    assert difference.max() <= 1 and (difference > 0).mean() < 2e-3


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.5, 2.0])
def test_the_blur_of_a_smooth_picture_is_close_to_that_of_pillow(sigma):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), "uint8"))
    image = coarse.resize((64, 64), Image.Resampling.BICUBIC)
    out = np.array(gaussian_blur(np.array(image)[None].astype("float32"), np.float32([sigma]), 2.0))[0]
    difference = np.abs(out - np.array(image.filter(ImageFilter.GaussianBlur(sigma))))
    assert difference.max() <= 8 and difference.mean() < 0.8


def test_each_image_gets_its_own_operation():
    noise = np.floor(pictures()[:1] * 0.9).astype("float32") + 5  # so that autocontrast has an effect
    images = np.repeat(noise, len(OPERATIONS) + 1, axis=0)
    operations = np.arange(-1, len(OPERATIONS), dtype="int32")
    out = np.array(transform(images, operations, np.full(len(images), 0.9, "float32"), np.ones(len(images), "float32")))
    np.testing.assert_array_equal(out[0], images[0])
    for index in range(len(OPERATIONS)):
        alone = transform(images[:1], operations[index + 1 : index + 2], np.float32([0.9]), np.float32([1]))
        np.testing.assert_array_equal(out[index + 1], np.array(alone)[0])
    assert len({image.tobytes() for image in out}) == len(OPERATIONS) + 1


@pytest.fixture
def drawn(monkeypatch):
    """Record the random choices (operation, level, sign) of `randaugment` instead of changing images."""
    steps = []

    def record(images, *drawn):
        steps.append([np.array(values) for values in drawn])
        return images

    monkeypatch.setattr(randaugment, "transform", record)
    return steps


COUNT = 30_000


def draw(operations=1):
    return np.random.default_rng(1).random((COUNT, operations * DRAWS), dtype="float32")


def test_operations_are_equally_likely_and_have_the_given_probability(drawn):
    randaugment.randaugment(np.zeros((COUNT, 1, 1, 3), "float32"), draw(2), 9.0, 0.5, 0.6)
    assert len(drawn) == 2
    for operation, _, sign in drawn:
        share = np.bincount(operation + 1, minlength=16) / COUNT
        assert len(share) == 16
        assert abs(share[0] - 0.4) < 4 * math.sqrt(0.4 * 0.6 / COUNT)
        assert np.abs(share[1:] - 0.6 / 15).max() < 4 * math.sqrt(0.04 * 0.96 / COUNT)
        assert set(sign) == {-1, 1}
        assert abs(sign.mean()) < 4 / math.sqrt(COUNT)
    (first, _, _), (second, _, _) = drawn
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(COUNT)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities_0_and_1_are_exact(drawn, probability):
    randaugment.randaugment(np.zeros((COUNT, 1, 1, 3), "float32"), draw(), 9.0, 0.5, probability)
    assert ((drawn[0][0] >= 0) == bool(probability)).all()


def test_magnitudes_are_normal_and_clipped_to_ten(drawn):
    draws = draw()
    draws[0], draws[1] = 0.0, np.nextafter(np.float32(1), np.float32(0))  # the ends of the range of the random numbers
    randaugment.randaugment(np.zeros((COUNT, 1, 1, 3), "float32"), draws, 9.0, 0.5, 0.5)
    level = drawn[0][1] * 10
    assert level.min() == 0 and level.max() == 10
    normal = NormalDist(9.0, 0.5)
    assert abs((level == 10).mean() - (1 - normal.cdf(10))) < 0.004
    for quantile in (0.1, 0.5, 0.9):
        assert abs(np.quantile(level, quantile) - normal.inv_cdf(quantile)) < 0.02


def test_without_deviation_every_magnitude_is_the_mean(drawn):
    randaugment.randaugment(np.zeros((COUNT, 1, 1, 3), "float32"), draw(), 7.0, 0.0, 0.5)
    np.testing.assert_array_equal(drawn[0][1], np.float32(0.7))

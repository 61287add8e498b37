"""Tests of the measures of pixels."""

import numpy as np
import pytest
from PIL import Image

from components.data.statistics.pixels import PixelMeasures, grey


@pytest.mark.parametrize("count, size", [(1, 3), (70, 32), (3, 224), (2, 600)])
def test_measures_equal_those_of_each_image(count, size):
    pixels = np.random.default_rng(size).integers(0, 256, (count, size, size, 3), np.uint8)
    measures = PixelMeasures.of(pixels)
    for number, image in enumerate(pixels):
        colours = image.reshape(-1, 3).astype(float)
        assert measures.mean[number] == pytest.approx(colours.mean(axis=0), rel=1e-12)
        assert measures.mean_square[number] == pytest.approx((colours**2).mean(axis=0), rel=1e-7)
        assert measures.low[number].tolist() == colours.min(axis=0).tolist()
        assert measures.high[number].tolist() == colours.max(axis=0).tolist()
        luma = image.astype(float) @ (0.299, 0.587, 0.114)
        assert measures.brightness[number] == pytest.approx(luma.mean())
        around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        assert measures.sharpness[number] == pytest.approx((around - 4 * luma[1:-1, 1:-1]).var(), rel=1e-5)


def test_grey_equals_pillows():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels]).astype(int)
    assert np.abs(expected - grey(pixels)).max() <= 1  # Pillow's weights are rounded
    assert np.array_equal(grey(pixels), PixelMeasures.of(pixels).grey)

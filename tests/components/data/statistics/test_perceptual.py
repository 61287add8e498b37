import imagehash
import numpy as np
import pytest
from PIL import Image

from components.data.statistics.perceptual import edge_correlation, phash, thumbnail


@pytest.fixture(scope="module")
def pictures():
    """Blurred noise, in which the low frequencies are strong, as in photographs."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (40, 6, 6, 3), "uint8")
    return [Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC) for pixels in small]


def test_the_hash_equals_that_of_imagehash(pictures):
    hashes = phash(np.stack([thumbnail(np.asarray(picture.convert("L"))) for picture in pictures]))
    wanted = [int(str(imagehash.phash(picture)), 16) for picture in pictures]
    assert hashes.tolist() == wanted


def test_no_images_have_no_hashes():
    assert phash(np.zeros((0, 32, 32), "uint8")).shape == (0,)


def test_edges_correlate_at_any_brightness_but_not_between_pictures(pictures):
    grey = np.stack([thumbnail(np.asarray(picture.convert("L"))) for picture in pictures])
    darker = (grey * 0.5 + 20).astype("uint8")
    assert (edge_correlation(grey, darker) > 0.95).all()
    assert abs(edge_correlation(grey, np.roll(grey, 1, axis=0)).mean()) < 0.1


def test_an_image_without_edges_correlates_with_none(pictures):
    blank = np.full((1, 32, 32), 200, "uint8")
    assert edge_correlation(blank, blank) == 0
    assert edge_correlation(blank, thumbnail(np.asarray(pictures[0].convert("L")))[None]) == 0

import imagehash
import numpy as np
import pytest
from PIL import Image

from components.data.statistics.perceptual import close_pairs, edge_correlation, phash, thumbnail


@pytest.fixture(scope="module")
def pictures():
    """Blurred noise, in which the low frequencies are strong, as in photographs."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (40, 6, 6, 3), "uint8")
    return [Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC) for pixels in small]


def test_the_hash_equals_that_of_imagehash(pictures):
    hashes = phash(np.stack([thumbnail(picture) for picture in pictures]))
    wanted = [int(str(imagehash.phash(picture)), 16) for picture in pictures]
    assert hashes.tolist() == wanted


def test_no_images_have_no_hashes():
    assert phash(np.zeros((0, 32, 32), "uint8")).shape == (0,)


def test_pairs_are_within_the_distance():
    first = np.array([0b0000, 0b1111, 2**63], np.uint64)
    second = np.array([0b0001, 0b0111, 2**63 + 1, 2**64 - 1], np.uint64)
    i, j = close_pairs(first, second, distance=1)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0), (1, 1), (2, 2)]
    assert len(close_pairs(first[:0], second, distance=64)[0]) == 0


def test_the_closest_of_many_pairs_are_kept():
    first, second = np.array([0], np.uint64), np.array([7, 3, 15, 1, 3], np.uint64)
    i, j = close_pairs(first, second, distance=3, most=2)
    assert (i.tolist(), j.tolist()) == ([0, 0], [3, 1])


def test_pairs_equal_those_of_a_plain_search():
    rng = np.random.default_rng(1)
    first, second = (rng.integers(0, 2**16, size, dtype=np.uint64) for size in (50, 70))
    i, j = close_pairs(first, second, distance=3)
    wanted = {(a, b) for a in range(50) for b in range(70) if (int(first[a]) ^ int(second[b])).bit_count() <= 3}
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == wanted and wanted


def test_edges_correlate_at_any_brightness_but_not_between_pictures(pictures):
    grey = np.stack([thumbnail(picture) for picture in pictures])
    darker = (grey * 0.5 + 20).astype("uint8")
    assert (edge_correlation(grey, darker) > 0.95).all()
    assert abs(edge_correlation(grey, np.roll(grey, 1, axis=0)).mean()) < 0.1


def test_an_image_without_edges_correlates_with_none(pictures):
    blank = np.full((1, 32, 32), 200, "uint8")
    assert edge_correlation(blank, blank) == 0
    assert edge_correlation(blank, thumbnail(pictures[0])[None]) == 0

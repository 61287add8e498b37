import io

import numpy as np
from PIL import Image

from components.data.statistics.figures import Leak
from components.data.statistics.leaks import find_leaks
from tests.helpers.spans import encoded, picture


def test_files_of_equal_pixels_leak(measured):
    quick, small = (encoded(picture(0), compress_level=level) for level in (0, 9))
    assert quick != small
    images = measured(
        train=[(quick, 0), (quick, 0), (encoded(picture(1)), 0)], test=[(small, 1), (encoded(picture(2)), 0)]
    )
    twins, leaks = find_leaks(images)
    assert leaks == [Leak(source="train", target="test", exact=1, near=0)]
    assert twins[twins.split == "test"].id.tolist() == [b"test-0"]
    assert sorted(twins[twins.split == "train"].id) == [b"train-0", b"train-1"]  # every image that shows it
    assert twins.exact.all() and (twins.correlation == 1).all()


def test_equal_indices_in_different_palettes_do_not_leak(measured):
    indices = np.arange(1024, dtype="uint8").reshape(32, 32) % 4

    def paletted(colours):
        image = Image.fromarray(indices, "P")
        image.putpalette(colours)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    red, blue = (
        paletted([value for n in range(4) for value in colour(n)])
        for colour in (lambda n: (60 * n, 0, 0), lambda n: (0, 0, 60 * n))
    )
    _, leaks = find_leaks(measured(train=[(red, 0)], test=[(blue, 0)]))
    assert leaks[0].exact == 0


def test_a_grey_file_and_an_rgb_file_of_equal_pixels_leak(measured):
    grey = Image.fromarray(picture(0)).convert("L")
    files = [encoded(np.asarray(image)) for image in (grey, grey.convert("RGB"))]
    assert find_leaks(measured(train=[(files[0], 0)], test=[(files[1], 0)]))[1][0].exact == 1


def test_images_of_16_bits_are_compared_by_their_content(measured):
    deep = [np.asarray(Image.fromarray(picture(seed)).convert("L")).astype("uint16") * 256 + 7 for seed in range(2)]
    darker = (deep[0] * 0.8).astype("uint16")
    files = [encoded(pixels) for pixels in (*deep, darker)]
    twins, leaks = find_leaks(measured(train=[(files[0], 0), (files[1], 0)], test=[(files[2], 0)]))
    assert leaks == [Leak(source="train", target="test", exact=0, near=1)]
    assert twins[twins.split == "test"].twin_id.tolist() == [b"train-0"]


def test_a_near_twin_is_found_beside_an_exact_one(measured):
    original, darker = encoded(picture(0)), encoded((picture(0) * 0.9).astype("uint8"))
    both, one = [(original, 0), (darker, 0)], [(original, 0)]
    twins, leaks = find_leaks(measured(train=both, test=one))
    assert leaks == [Leak(source="train", target="test", exact=1, near=0)]
    assert sorted(twins[twins.split == "train"].id) == [b"train-0", b"train-1"]  # both must be left out
    assert find_leaks(measured(train=one, test=both))[1] == [Leak(source="train", target="test", exact=1, near=1)]


def test_a_darkened_and_recompressed_image_is_a_near_leak(measured):
    original = picture(0)
    darker = encoded((original * 0.8).astype("uint8"), "JPEG", quality=60)
    others = [(encoded(picture(seed)), 0) for seed in range(10, 40)]
    images = measured(train=[(encoded(original), 0), *others], val=[(encoded(picture(50)), 0)], test=[(darker, 0)])
    twins, leaks = find_leaks(images)
    assert Leak(source="train", target="test", exact=0, near=1) in leaks
    assert sum(leak.exact + leak.near for leak in leaks) == 1
    [row] = twins[twins.split == "test"].itertuples()
    assert (row.id, row.twin_split, row.twin_id, row.exact) == (b"test-0", "train", b"train-0", False)
    assert 0.4 < row.correlation < 1


def test_blank_images_are_not_near_leaks(measured):
    blank = [(encoded(np.full((32, 32, 3), value, "uint8")), 0) for value in (10, 11)]
    _, leaks = find_leaks(measured(train=blank[:1], test=blank[1:]))
    assert leaks == [Leak(source="train", target="test", exact=0, near=0)]


def test_a_span_without_usable_images_has_no_leaks(measured):
    twins, leaks = find_leaks(measured(train=[(b"", 0)], test=[(b"", 0)]))
    assert len(twins) == 0 and leaks == []
    assert set(twins) == {"split", "id", "twin_split", "twin_id", "correlation", "exact"}

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.figures import Leak
from components.image_statistics import figures, find_leaks, measure_shard, repeated_ids
from components.ingest import tfrecord
from tests.spans import bomb, encoded, picture

NAMES = ["cat", "dog", "fox"]


@pytest.fixture
def measured(tmp_path):
    """measured(split=[(image, label)]) gives the table of these splits, ids `<split>-<number>`."""

    def measure(**splits):
        tables = []
        for split, examples in splits.items():
            path = tmp_path / split
            records = [
                tfrecord.example(image, label, f"{split}-{n}".encode()) for n, (image, label) in enumerate(examples)
            ]
            path.write_bytes(b"".join(map(tfrecord.frame, records)))
            tables += [table.to_pandas() for table in measure_shard((split, str(path)), 32)]
        return pd.concat(tables, ignore_index=True)

    return measure


def test_what_is_no_image_is_named_with_its_reason_and_spoils_nothing(measured):
    jpeg = encoded(picture(0), "JPEG")
    rows = measured(train=[(jpeg, 0), (b"", 0), (b"<html>", 0), (bomb(), 0), (jpeg[:200], 0), (encoded(picture(1)), 1)])
    assert rows.reason.tolist() == [
        "", "not a PNG or JPEG image", "not a PNG or JPEG image", "more than 16,777,216 pixels", "does not decode", "",
    ]  # fmt: skip
    assert rows.id.tolist() == [b"train-%d" % n for n in range(6)]
    assert rows.width.dropna().tolist() == [32, 32]


def test_looks_are_those_of_the_pixels(measured):
    pixels = picture(0)
    [row] = measured(train=[(encoded(pixels), 2)]).itertuples()
    assert (row.format, row.width, row.height, row.label) == ("PNG RGB", 32, 32, 2)
    np.testing.assert_allclose(row.mean, pixels.mean((0, 1)))
    np.testing.assert_allclose(row.mean_square, (pixels.astype(float) ** 2).mean((0, 1)))
    assert row.brightness == pytest.approx((pixels @ [0.299, 0.587, 0.114]).mean(), rel=1e-5)
    [flat] = measured(train=[(encoded(np.full((32, 32, 3), 90, "uint8")), 0)]).itertuples()
    assert flat.sharpness == 0 < row.sharpness


def test_other_sizes_and_modes_are_taken(measured):
    grey = Image.fromarray(picture(0, 50)).convert("L")
    rows = measured(
        train=[
            (encoded(picture(0, 64), "JPEG"), 0),
            (encoded(np.asarray(grey)), 0),
            (encoded(np.asarray(Image.fromarray(picture(1)).convert("RGBA"))), 0),
            (encoded(np.zeros((1, 1, 3), "uint8")), 0),
        ]
    )
    assert (rows.reason == "").all()
    assert rows.format.tolist() == ["JPEG RGB", "PNG L", "PNG RGBA", "PNG RGB"]
    assert rows.height.tolist() == [64, 50, 32, 1]


def test_figures_of_a_span(measured):
    train = [(encoded(picture(n)), n % 2) for n in range(4)] + [(encoded(picture(0)), 0), (b"", 7)]
    images = measured(train=train, val=[(encoded(picture(9, 40)), 1)], test=[(encoded(picture(8)), 2)])
    found = figures(images, NAMES, [], span=3, gate_span=1, image_size=32)
    assert (found.span, found.gate_span, found.repeated_ids) == (3, 1, 0)
    of = found.splits["train"]
    assert (of.images, of.outside_labels, of.duplicates) == (6, 1, 1)
    assert of.labels == {"cat": 3, "dog": 2, "fox": 0}
    assert of.undecodable == {"not a PNG or JPEG image": 1}
    assert of.sizes == {"32x32": 5} and of.formats == {"PNG RGB": 5}
    pixels = np.stack([picture(n) for n in (0, 1, 2, 3, 0)]).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(of.mean, pixels.mean(0))
    np.testing.assert_allclose(of.spread, pixels.std(0))
    assert sum(of.brightness) == sum(of.sharpness) == sum(of.sides) == 5
    assert found.splits["val"].smallest_side == 40


def test_an_id_comes_once_in_a_span_and_may_come_in_the_gate_s_too():
    images = pd.DataFrame({"split": ["train", "train", "val", "test", "test"], "id": [b"a", b"b", b"a", b"a", b"b"]})
    assert repeated_ids(images).tolist() == [False, False, True, False, False]


def test_a_split_without_a_usable_image_has_figures_too(measured):
    found = figures(measured(train=[(b"", 0)], val=[(b"", 0)], test=[(b"", 0)]), NAMES, [], 1, 1, 32)
    assert found.splits["train"].smallest_side is None
    assert found.splits["train"].mean == [0, 0, 0]


def test_equal_pixels_leak_whatever_the_file(measured):
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


def test_equal_indices_in_another_palette_are_other_pixels(measured):
    indices = np.arange(1024, dtype="uint8").reshape(32, 32) % 4

    def paletted(colours):
        image = Image.fromarray(indices, "P")
        image.putpalette(colours)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    red, blue = (paletted([value for n in range(4) for value in colour(n)]) for colour in (
        lambda n: (60 * n, 0, 0), lambda n: (0, 0, 60 * n)
    ))  # fmt: skip
    _, leaks = find_leaks(measured(train=[(red, 0)], test=[(blue, 0)]))
    assert leaks[0].exact == 0


def test_a_grey_file_of_the_same_pixels_is_the_same_picture(measured):
    grey = Image.fromarray(picture(0)).convert("L")
    files = [encoded(np.asarray(image)) for image in (grey, grey.convert("RGB"))]
    assert find_leaks(measured(train=[(files[0], 0)], test=[(files[1], 0)]))[1][0].exact == 1


def test_images_of_16_bits_are_told_apart_and_leak_as_others_do(measured):
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
    assert sorted(twins[twins.split == "train"].id) == [b"train-0", b"train-1"]  # both are to be left out
    assert find_leaks(measured(train=one, test=both))[1] == [Leak(source="train", target="test", exact=1, near=1)]


def test_a_darkened_and_recompressed_image_leaks_nearly(measured):
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


def test_blank_images_are_no_near_twins(measured):
    blank = [(encoded(np.full((32, 32, 3), value, "uint8")), 0) for value in (10, 11)]
    _, leaks = find_leaks(measured(train=blank[:1], test=blank[1:]))
    assert leaks == [Leak(source="train", target="test", exact=0, near=0)]


def test_nothing_usable_leaks_nothing(measured):
    twins, leaks = find_leaks(measured(train=[(b"", 0)], test=[(b"", 0)]))
    assert len(twins) == 0 and leaks == []
    assert set(twins) == {"split", "id", "twin_split", "twin_id", "correlation", "exact"}

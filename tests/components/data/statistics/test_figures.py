from collections import Counter

import numpy as np

from components.data.statistics.figures import ImageFigures, Leak, Totals, read_figures, remove_leaks
from tests.helpers.spans import encoded, picture

NAMES = ["cat", "dog", "fox"]


def test_figures_of_a_span(measured, summarized):
    train = [(encoded(picture(n)), n % 2) for n in range(4)] + [(encoded(picture(0)), 0), (b"", 7)]
    flat = encoded(np.zeros((32, 32, 3), "uint8"))
    images = measured(
        train=train, val=[(encoded(picture(9, 40)), 1)], test=[(encoded(picture(8)), 2), (flat, 0), (flat, 0)]
    )
    found = read_figures(summarized(images, NAMES))
    assert (found.span, found.gate_span, found.repeated_ids) == (3, 1, 0)
    of = found.splits["train"]
    assert (of.images, of.outside_labels, of.duplicates) == (6, 1, 1)
    assert of.labels == {"cat": 3, "dog": 2, "fox": 0}
    assert of.undecodable == {"not a PNG or JPEG image": 1}
    assert of.sizes == {"32x32": 5} and of.formats == {"PNG RGB": 5}
    pixels = np.stack([picture(n) for n in (0, 1, 2, 3, 0)]).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(of.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(of.spread, pixels.std(0), rtol=1e-12)
    assert sum(of.brightness) == sum(of.sharpness) == sum(of.sides) == 5
    assert found.splits["val"].smallest_side == 40
    assert [split.remarks for split in found.splits.values()] == [{}, {}, {"one_colour": 2}]
    assert found.leaks == [Leak(source=source, target=target, exact=0, near=0) for source, target in PAIRS]


PAIRS = [("train", "test"), ("val", "test"), ("train", "val")]


def test_totals_do_not_depend_on_order_and_parts(measured):
    images = measured(train=[(encoded(picture(n, 20 + n % 5)), n % 3) for n in range(30)] + [(b"", 1)] * 2)
    whole = Totals.of(images, 3).figures(NAMES, 0)
    shuffled = images.sample(frac=1, random_state=0)
    parts = [Totals.of(shuffled[start::7], 3) for start in range(7)]
    assert Totals.add(parts).figures(NAMES, 0) == whole
    assert Totals.add([*parts, Totals.of(images[:0], 3)]).figures(NAMES, 0) == whole
    assert list(whole.sizes) == ["20x20", "21x21", "22x22", "23x23", "24x24"] and whole.images == 32


def test_a_split_without_a_usable_image_has_figures(measured, summarized):
    found = read_figures(summarized(measured(train=[(b"", 0)], val=[(b"", 0)], test=[(b"", 0)]), NAMES))
    assert found.splits["train"].smallest_side is None
    assert found.splits["train"].mean == [0, 0, 0]
    assert found.leaks == []


def test_leaks_are_removed_from_the_figures(measured):
    images = measured(
        train=[(encoded(picture(n)), n % 2) for n in range(5)],
        val=[(encoded(picture(8)), 1)],
        test=[(encoded(picture(9)), 0)],
    )
    found = ImageFigures(
        span=1,
        gate_span=1,
        image_size=32,
        splits={str(split): Totals.of(rows, 3).figures(NAMES, 0) for split, rows in images.groupby("split")},
        repeated_ids=0,
        leaks=[Leak(source="train", target="test", exact=1, near=0)],
    )
    left = remove_leaks(found, Counter({("train", 0): 1, ("val", 1): 1}))
    assert left.leaks == [] and left.splits["test"] == found.splits["test"]
    assert left.splits["train"].labels == {"cat": 2, "dog": 2, "fox": 0} and left.splits["train"].images == 4
    assert left.splits["val"].labels == {"cat": 0, "dog": 0, "fox": 0}

import numpy as np
import pandas as pd

from components.data.statistics.figures import Leak, compute_figures, remove_leaks, repeated_ids
from tests.helpers.spans import encoded, picture
from trainer.framing import Framing

NAMES = ["cat", "dog", "fox"]


def test_figures_of_a_span(measured):
    train = [(encoded(picture(n)), n % 2) for n in range(4)] + [(encoded(picture(0)), 0), (b"", 7)]
    flat = encoded(np.zeros((32, 32, 3), "uint8"))
    images = measured(
        train=train, val=[(encoded(picture(9, 40)), 1)], test=[(encoded(picture(8)), 2), (flat, 0), (flat, 0)]
    )
    found = compute_figures(images, NAMES, [], span=3, gate_span=1, framing=Framing(32))
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
    assert [split.remarks for split in found.splits.values()] == [{}, {}, {"one_colour": 2}]


def test_an_id_may_appear_in_the_span_and_in_the_test_set():
    images = pd.DataFrame({"split": ["train", "train", "val", "test", "test"], "id": [b"a", b"b", b"a", b"a", b"b"]})
    assert repeated_ids(images).tolist() == [False, False, True, False, False]


def test_a_split_without_a_usable_image_has_figures(measured):
    found = compute_figures(measured(train=[(b"", 0)], val=[(b"", 0)], test=[(b"", 0)]), NAMES, [], 1, 1, Framing(32))
    assert found.splits["train"].smallest_side is None
    assert found.splits["train"].mean == [0, 0, 0]


def test_leaks_are_removed_from_the_figures(measured):
    images = measured(
        train=[(encoded(picture(n)), n % 2) for n in range(5)],
        val=[(encoded(picture(8)), 1)],
        test=[(encoded(picture(9)), 0)],
    )
    leaking = Leak(source="train", target="test", exact=1, near=0)
    found = compute_figures(images, NAMES, [leaking], 1, 1, Framing(32))
    left = remove_leaks(found, images, images.id.isin([b"train-0", b"val-0"]))
    assert left.leaks == [] and left.splits["test"] == found.splits["test"]
    assert left.splits["train"].labels == {"cat": 2, "dog": 2, "fox": 0} and left.splits["train"].images == 4
    assert left.splits["val"].labels == {"cat": 0, "dog": 0, "fox": 0}

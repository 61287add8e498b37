import numpy as np
import pytest
from PIL import Image

from components.data.statistics.conflicts import find_conflicts
from components.data.statistics.leaks import find_leaks
from tests.helpers.spans import encoded, picture


def conflicts(images):
    return find_conflicts(images, find_leaks(images)[0])


def rows(table):
    return {(row.split, row.id, row.label, row.twin_id, row.twin_label, row.exact) for row in table.itertuples()}


def test_a_conflict_names_both_images_and_both_labels(measured):
    quick, small = (encoded(picture(0), compress_level=level) for level in (0, 9))
    images = measured(train=[(quick, 0), (encoded(picture(1)), 1), (small, 2)])
    assert rows(conflicts(images)) == {
        ("train", b"train-0", 0, b"train-2", 2, True),
        ("train", b"train-2", 2, b"train-0", 0, True),
    }


def test_equal_images_with_the_same_label_are_not_a_conflict(measured):
    same = [(encoded(picture(0)), 1)] * 3
    assert conflicts(measured(train=same, test=same)).empty


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test"), ("val", "test")])
def test_conflicts_across_splits_are_found(measured, splits):
    images = measured(**{split: [(encoded(picture(0)), label)] for label, split in enumerate(splits)})
    assert {(row.split, row.twin_split) for row in conflicts(images).itertuples()} == {splits, splits[::-1]}


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: encoded(pixels, "JPEG", quality=75),
        lambda pixels: encoded((pixels * 0.8).astype("uint8")),
        lambda pixels: encoded(pixels.repeat(2, axis=0).repeat(2, axis=1)),
        lambda pixels: encoded(np.asarray(Image.fromarray(pixels).convert("L"))),
    ],
    ids=["compressed", "darker", "larger", "grey"],
)
def test_a_nearly_equal_image_with_another_label_is_a_conflict(measured, change):
    others = [(encoded(picture(seed)), seed % 2) for seed in range(10, 40)]
    found = conflicts(measured(train=[(encoded(picture(0)), 0), *others, (change(picture(0)), 1)]))
    assert set(found.id) == {b"train-0", b"train-31"}
    assert not found.exact.any() and (found.correlation >= 0.9).all()


def test_every_image_that_shows_the_picture_has_a_row(measured):
    images = measured(train=[(encoded(picture(0)), label) for label in (0, 0, 1, 2, 2, 2)])
    assert len(conflicts(images)) == 6


def test_images_of_one_colour_conflict_only_if_they_are_equal(measured):
    blank = [(encoded(np.full((32, 32, 3), value, "uint8")), label) for label, value in enumerate((10, 11, 10))]
    assert set(conflicts(measured(train=blank)).id) == {b"train-0", b"train-2"}


def test_digits_of_different_classes_are_different_pictures(measured):
    """Digits of different classes look more alike than photographs, and the gate must accept the bundled sample."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    scaled = (digits.images[:600] * 255 / 16).astype("uint8").repeat(4, axis=1).repeat(4, axis=2)
    assert conflicts(measured(train=list(zip(map(encoded, scaled), digits.target[:600].tolist(), strict=True)))).empty


def test_a_twin_that_stays_in_training_is_preferred_to_one_that_leaks(measured):
    images = measured(
        train=[(encoded(picture(0)), 0), (encoded(picture(0), compress_level=0), 1), (encoded(picture(1)), 0)],
        test=[(encoded(picture(0)), 0)],
    )
    found = conflicts(images)
    assert found[found.id == b"train-1"].twin_split.tolist() == ["test"]


def test_a_span_without_usable_images_has_no_conflicts(measured):
    assert conflicts(measured(train=[(b"", 0), (b"", 1)])).empty

import numpy as np
import pytest
from PIL import Image

from components.data.statistics.conflicts import find_conflicts
from components.data.statistics.twins import Image as Place
from components.data.statistics.twins import Twin
from tests.helpers.spans import encoded, picture


def place(name, label):
    return Place(name.split("-")[0], name.encode(), label)


def rows(images, leaking=(), near=()):
    found = find_conflicts([place(name, label) for name, label in images], leaking, near)
    return {(row["id"].decode(), row["twin_id"].decode(), row["twin_label"], row["exact"]) for row in found}


def test_a_conflict_names_both_images_and_both_labels():
    [first, second] = find_conflicts([place("train-0", 0), place("val-2", 2)], (), ())
    assert list(first.values())[:8] == ["train", b"train-0", 0, "val", b"val-2", 2, 1.0, True]
    assert list(second.values())[:8] == ["val", b"val-2", 2, "train", b"train-0", 0, 1.0, True]


def test_equal_images_with_the_same_label_are_not_a_conflict():
    near = [Twin(place("val-0", 1), 0.99, exact=False)]
    assert rows([("train-0", 1), ("train-1", 1), ("test-0", 1)], near=near) == set()


def test_every_image_that_shows_the_picture_has_a_row():
    found = rows([(f"train-{n}", label) for n, label in enumerate((0, 0, 1, 2, 2, 2))])
    assert len(found) == 6 and ("train-0", "train-2", 1, True) in found and ("train-5", "train-0", 0, True) in found


def test_a_twin_that_stays_in_training_is_preferred_to_one_that_leaks():
    images = [("train-0", 0), ("train-1", 1), ("test-0", 0)]
    assert ("train-1", "test-0", 0, True) in rows(images, leaking={"train"})
    assert ("train-1", "train-0", 0, True) in rows(images[:2], leaking={"train"})
    near = [Twin(place("train-7", 0), 0.99, exact=False, leaks=True), Twin(place("val-8", 0), 0.91, exact=False)]
    assert rows([("train-1", 1)], near=near) == {("train-1", "val-8", 0, False)}


def compressed(pixels):
    return encoded(pixels, "JPEG", quality=75)


def darker(pixels):
    return encoded((pixels * 0.8).astype("uint8"))


def larger(pixels):
    return encoded(pixels.repeat(2, axis=0).repeat(2, axis=1))


def grey(pixels):
    return encoded(np.asarray(Image.fromarray(pixels).convert("L")))


def test_nearly_equal_images_with_another_label_are_conflicts(measured, find):
    changes = [compressed, darker, larger, grey]
    others = [(encoded(picture(seed)), seed % 2) for seed in range(10, 40)]
    originals = [(encoded(picture(seed)), 0) for seed in range(4)]
    changed = [(change(picture(seed)), 1) for seed, change in enumerate(changes)]
    blank = [(encoded(np.full((32, 32, 3), value, "uint8")), label) for label, value in enumerate((10, 11, 10))]
    images = measured(train=[*originals, *others, *blank], val=changed)
    _, conflicts = find(images)
    nearly = conflicts[~conflicts.exact]
    assert {(row.id, row.twin_id) for row in nearly.itertuples() if row.split == "val"} == {
        (b"val-%d" % n, b"train-%d" % n) for n in range(4)
    }
    assert len(nearly) == 8 and (nearly.correlation >= 0.9).all()
    assert conflicts[conflicts.exact].id.tolist() == [b"train-34", b"train-36"]  # the blank images of equal colour


def test_the_twin_of_a_leaking_image_is_one_that_stays(measured, find):
    dark = darker(picture(0))
    images = measured(train=[(encoded(picture(0)), 0), (dark, 1)], test=[(encoded(picture(0)), 0)])
    _, conflicts = find(images)
    assert conflicts[conflicts.id == b"train-1"].twin_split.tolist() == ["test"]


@pytest.mark.slow
def test_digits_of_different_classes_are_different_pictures(measured, find):
    """Digits of different classes look more alike than photographs, and the gate must accept the bundled sample."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    scaled = (digits.images[:600] * 255 / 16).astype("uint8").repeat(4, axis=1).repeat(4, axis=2)
    images = measured(train=list(zip(map(encoded, scaled), digits.target[:600].tolist(), strict=True)))
    assert find(images)[1].empty

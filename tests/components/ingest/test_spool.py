import itertools
import random

import pytest

from components.ingest.spool import Spool


def split(tmp_path, images, held_out=0.1, seed=0, per_class=None):
    """{split: [(id, label), ...]} of [(split, label, id), ...]."""
    with Spool(tmp_path / "spool", seed) as spool:
        for name, label, id in images:
            spool.add(name, label, id, b"image of " + id)
        spool.relabel(list(range(100)))
        result = {}
        for name, rows in spool.split(held_out, per_class).items():
            read = [(*spool.read(row), int(row["label"])) for row in rows]
            assert all(image == b"image of " + id for id, image, _ in read)
            result[name] = [(id, label) for id, _, label in read]
        return result


def images(counts, name=None):
    return [(name, label, b"%d/%d" % (label, row)) for label, count in enumerate(counts) for row in range(count)]


def labels(found):
    return {name: [[label for _, label in rows].count(at) for at in range(3)] for name, rows in found.items()}


def test_val_is_held_out_of_train_class_by_class(tmp_path):
    test = [("test", 0, b"t0"), ("test", 1, b"t1"), ("test", 2, b"t2")]
    found = split(tmp_path, images([50, 20, 4], "train") + test)
    assert labels(found) == {"train": [45, 18, 3], "val": [5, 2, 1], "test": [1, 1, 1]}
    assert sorted(id for id, _ in found["test"]) == [b"t0", b"t1", b"t2"]


def test_source_without_splits(tmp_path):
    found = split(tmp_path, images([50, 178, 3]))
    assert labels(found) == {"train": [40, 142, 1], "val": [5, 18, 1], "test": [5, 18, 1]}


@pytest.mark.parametrize("name", [None, "train"])
def test_a_small_part_of_each_class_is_part_of_a_larger_one(tmp_path, name):
    rows = images([100, 200, 12], name) + [("test", label, b"t%d" % label) for label in range(3) if name]
    whole, large, small = (split(tmp_path, rows, per_class=count) for count in (None, 40, 20))
    assert labels(large)["train"] == [36, 36, 10 if name is None else 11]
    assert labels(large)["val"] == [4, 4, 1]
    assert labels(small)["train"] == [18, 18, 10 if name is None else 11]
    assert labels(small)["val"] == [2, 2, 1]
    for part in ("train", "val"):
        assert set(small[part]) <= set(large[part]) <= set(whole[part])
    assert small["test"] == whole["test"]


def test_a_part_as_large_as_the_class_is_all_of_it(tmp_path):
    """A tenth of 25 is a half: both ways to val round it alike."""
    found = split(tmp_path, images([25, 5, 3], "train"), per_class=25)
    assert labels(found) == {"train": [22, 4, 2], "val": [3, 1, 1], "test": [0, 0, 0]}
    assert split(tmp_path, images([25, 5, 3], "train")) == found


def test_splits_of_the_source_are_kept(tmp_path):
    rows = [("train", 0, b"a"), ("val", 0, b"b"), ("test", 0, b"c")]
    assert split(tmp_path, rows) == {"train": [(b"a", 0)], "val": [(b"b", 0)], "test": [(b"c", 0)]}


def test_the_order_of_the_source_does_not_matter(tmp_path):
    rows = images([30, 30, 30])
    shuffled = random.Random(1).sample(rows, len(rows))
    assert split(tmp_path, rows) == split(tmp_path, shuffled)


def test_the_seed_does(tmp_path):
    rows = images([30, 30, 30])
    assert split(tmp_path, rows, seed=0) != split(tmp_path, rows, seed=1)


def test_classes_are_mixed(tmp_path):
    order = [label for _, label in split(tmp_path, images([300, 300, 300]))["train"]]
    runs = 1 + sum(a != b for a, b in itertools.pairwise(order))
    assert runs > len(order) / 2  # two thirds are expected; sorted by class there are three


@pytest.mark.parametrize("ids, twice", [([b"a", b"b"], None), ([b"a", b"b", b"a"], b"a")])
def test_id_that_comes_twice(tmp_path, ids, twice):
    with Spool(tmp_path / "spool", 0) as spool:
        for id in ids:
            spool.add(None, 0, id, b"")
        spool.relabel([0])
        assert spool.twice() == twice

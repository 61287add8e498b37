import hashlib
import itertools
import random

import pytest

from components.data.ingest.history import SplitHistory, keys
from components.data.ingest.source import SPLITS
from components.data.ingest.spool import Spool, SpoolFile


def split(tmp_path, images, held_out=0.1, seed=0, per_class=None, history=None, number=1):
    """Split images, given as (split, label, id) or (split, label, id, picture).

    Without a picture the id stands for a picture. Returns {split: [(id, label), ...]} and the new history.
    """
    with SpoolFile(tmp_path / "spool") as file:
        for name, label, id, *picture in images:
            digest = hashlib.blake2b(picture[0] if picture else id, digest_size=16).hexdigest()
            file.add(name, label, id, b"image of " + id, keys(f"class {label}", id, digest))
        spool = Spool(file, file.finish(), range(100), seed)
        result = {}
        history = history or SplitHistory()
        splits = spool.split(held_out, history, per_class)
        for name, rows in splits.items():
            read = [(*spool.read(row), int(row["label"])) for row in rows]
            assert all(image == b"image of " + id for id, image, _ in read)
            result[name] = [(id, label) for id, _, label in read]
        return result, history.with_span(number, splits)


def images(counts, name=None):
    return [(name, label, b"%d/%d" % (label, row)) for label, count in enumerate(counts) for row in range(count)]


def labels(found):
    return {name: [[label for _, label in rows].count(at) for at in range(3)] for name, rows in found.items()}


def by_id(found):
    return {id: name for name, rows in found.items() for id, _ in rows}


def test_val_is_held_out_of_train(tmp_path):
    test = [("test", 0, b"t0"), ("test", 1, b"t1"), ("test", 2, b"t2")]
    found, _ = split(tmp_path, images([4000, 1000, 2], "train") + test)
    counts = labels(found)
    assert counts["test"] == [1, 1, 1] and sorted(id for id, _ in found["test"]) == [b"t0", b"t1", b"t2"]
    assert [sum(pair) for pair in zip(counts["train"], counts["val"], strict=True)] == [4000, 1000, 2]
    assert 340 < counts["val"][0] < 460 and 70 < counts["val"][1] < 130 and counts["val"][2] == 1


def test_source_without_splits(tmp_path):
    counts = labels(split(tmp_path, images([4000, 1000, 3]))[0])
    assert [sum(of) for of in zip(*counts.values(), strict=True)] == [4000, 1000, 3]
    for name in ("val", "test"):
        assert 340 < counts[name][0] < 460 and 70 < counts[name][1] < 130 and counts[name][2] == 1


def test_val_is_the_same_with_and_without_a_test_split(tmp_path):
    """So no image moves between train and val if a test split is added to the source."""
    of_all = split(tmp_path, images([300, 300]))[0]
    kept = [(None, label, id) for name in ("train", "val") for id, label in of_all[name]]
    of_train = split(tmp_path, [("train", label, id) for _, label, id in kept])[0]
    assert {*of_train["val"]} == {*of_all["val"]}


@pytest.mark.parametrize("count", range(3, 12))
def test_a_small_class_has_an_image_in_every_split(tmp_path, count):
    for seed in range(20):
        counts = labels(split(tmp_path, images([count, 50]), seed=seed)[0])
        assert all(counts[name][0] >= 1 for name in SPLITS)


def test_all_copies_of_a_picture_move_with_it(tmp_path):
    for seed in range(20):
        rows = [(None, 0, b"%d" % row, b"%d" % (row % 3)) for row in range(9)]
        rows += [(None, 1, b"of another class %d" % row, b"%d" % row) for row in range(12)]
        found, _ = split(tmp_path, rows, seed=seed)
        where = by_id(found)
        for row in range(3):
            assert len({where[b"%d" % (row + more)] for more in (0, 3, 6)} | {where[b"of another class %d" % row]}) == 1
        assert {where[b"%d" % row] for row in range(3)} == {*SPLITS}


def test_a_class_with_too_few_pictures_is_not_changed(tmp_path):
    rows = [(None, 0, b"%d" % row, b"%d" % (row % 2)) for row in range(9)]
    counts = labels(split(tmp_path, rows + images([0, 50]))[0])
    assert sorted(bool(counts[name][0]) for name in SPLITS) == [False, True, True]


@pytest.mark.parametrize("name", [None, "train"])
def test_fewer_images_of_each_class_are_a_subset_of_more(tmp_path, name):
    rows = images([300, 600, 12], name) + [("test", label, b"t%d" % label) for label in range(3) if name]
    parts = {count: split(tmp_path, rows, per_class=count)[0] for count in (3, 4, 5, 12, 20, 40, 250, 290, 10_000)}
    whole, _ = split(tmp_path, rows)
    there = [sum(of) for of in zip(labels(whole)["train"], labels(whole)["val"], strict=True)]
    for small, large in itertools.pairwise(parts.values()):
        for split_name in ("train", "val"):
            assert set(small[split_name]) <= set(large[split_name])
        assert small["test"] == whole["test"]
    assert parts[10_000] == whole
    for count, part in parts.items():
        of = labels(part)
        assert [sum(pair) for pair in zip(of["train"], of["val"], strict=True)] == [min(count, all_) for all_ in there]
    assert labels(parts[40])["val"][:2] == [4, 4] and labels(parts[20])["val"][:2] == [2, 2]


def test_splits_of_the_source_are_kept(tmp_path):
    rows = [("train", 0, b"a"), ("val", 0, b"b"), ("test", 0, b"c")]
    history = split(tmp_path, [(None, 0, id) for id in (b"a", b"b", b"c", b"d")])[1]
    assert split(tmp_path, rows, history=history)[0] == {"train": [(b"a", 0)], "val": [(b"b", 0)], "test": [(b"c", 0)]}


def test_the_order_of_the_source_does_not_matter(tmp_path):
    rows = images([30, 30, 4])
    shuffled = random.Random(1).sample(rows, len(rows))
    (one, _), (other, _) = split(tmp_path, rows), split(tmp_path, shuffled)
    assert one == other


def test_the_seed_matters(tmp_path):
    rows = images([30, 30, 30])
    assert {*split(tmp_path, rows, seed=0)[0]["val"]} != {*split(tmp_path, rows, seed=1)[0]["val"]}


def test_classes_are_mixed(tmp_path):
    order = [label for _, label in split(tmp_path, images([300, 300, 300]))[0]["train"]]
    runs = 1 + sum(a != b for a, b in itertools.pairwise(order))
    assert runs > len(order) / 2  # two thirds are expected; sorted by class there are three


@pytest.mark.parametrize("ids, twice", [([b"a", b"b"], None), ([b"a", b"b", b"a"], b"a")])
def test_id_that_appears_twice(tmp_path, ids, twice):
    with SpoolFile(tmp_path / "spool") as file:
        for id in ids:
            file.add(None, 0, id, b"", keys("cat", id, "00"))
        assert Spool(file, file.finish(), [0], 0).repeated_id() == twice


@pytest.mark.parametrize("given", [None, "train"])
@pytest.mark.parametrize("seed", range(15))
def test_no_picture_ever_moves_to_another_split(tmp_path, seed, given):
    """Every picture keeps its split and all its copies stay together, however a source changes between spans."""
    chance = random.Random(seed)
    fresh = map(str, itertools.count())
    source = {f"{label}/{row}.png": next(fresh) for label in range(3) for row in range(chance.choice([4, 20, 100]))}
    history = SplitHistory()
    seen: dict[str, str] = {}  # split of each picture
    ids: dict[str, str] = {}  # newest split of each id
    for number in range(1, 7):
        rows = [(given, int(id[0]), id.encode(), picture.encode()) for id, picture in source.items()]
        rows += [("test", label, b"t%d" % label) for label in range(3) if given]
        rows, recipe_seed = chance.sample(rows, len(rows)), chance.choice([0, 7])
        found, history = split(tmp_path, rows, seed=recipe_seed, history=history, number=number)
        where = {id.decode(): name for id, name in by_id(found).items() if not id.startswith(b"t")}
        assert where.keys() == source.keys()
        known = {**seen}
        for id, picture in source.items():
            assert known.setdefault(picture, where[id]) == where[id]  # also for copies within the same span
        encoded_again = [id for id, picture in source.items() if id in ids and picture not in seen]
        assert [where[id] for id in encoded_again] == [ids[id] for id in encoded_again]
        seen, ids = known, ids | where
        for _ in range(chance.randint(1, 40)):
            change(source, chance, fresh)


def change(source, chance, fresh):
    """Add, remove, rename, move, copy or encode images again. Each class keeps at least three pictures."""
    id = chance.choice([*source])
    label = id[0]
    match chance.choice(["add", "add", "remove", "rename", "move", "encode", "swap"]):
        case "add":
            source[f"{chance.choice('012')}/new {next(fresh)}.png"] = next(fresh)
        case "remove" if len({picture for other, picture in source.items() if other[0] == label and other != id}) > 30:
            del source[id]
        case "rename":
            source[f"{label}/renamed {next(fresh)}.png"] = source.pop(id)
        case "move" if len({picture for other, picture in source.items() if other[0] == label and other != id}) > 30:
            source[f"{chance.choice('012')}/moved {next(fresh)}.png"] = source.pop(id)
        case "encode":
            source[id] = next(fresh)
        case "swap":
            other = chance.choice([*source])
            source[id], source[other] = source[other], source[id]


def test_adding_and_removing_images_moves_no_other(tmp_path):
    """Without a history the split depends only on the picture."""
    small, large = (by_id(split(tmp_path, images([count] * 3))[0]) for count in (1000, 1100))
    assert all(large[id] == name for id, name in small.items())


def test_an_image_encoded_again_under_another_ending_keeps_its_split(tmp_path):
    rows = [(None, 0, b"%d.png" % row) for row in range(100)]
    before, history = split(tmp_path, rows)
    again = [(None, 0, id.replace(b".png", b".JPG"), b"lossy " + id) for _, _, id in rows]
    after, _ = split(tmp_path, again, history=history)
    assert {id.replace(b".JPG", b".png"): name for id, name in by_id(after).items()} == by_id(before)


def test_an_id_takes_precedence_over_a_name(tmp_path):
    """1.png and 1.jpg may be two pictures in different splits."""
    rows = [(None, 0, b"%d.%s" % (row, ending)) for row in range(100) for ending in (b"png", b"jpg")]
    before, history = split(tmp_path, rows)
    assert any(by_id(before)[b"%d.png" % row] != by_id(before)[b"%d.jpg" % row] for row in range(100))
    after, _ = split(tmp_path, [(None, 0, id, b"lossy " + id) for _, _, id in rows], history=history)
    assert by_id(after) == by_id(before)


def test_pixels_take_precedence_over_a_name(tmp_path):
    """An image keeps its split if it is renamed to the name of another image."""
    before, history = split(tmp_path, images([100, 100]))
    where = by_id(before)
    tested = next(id for id, name in where.items() if name == "test" and id.startswith(b"0/"))
    trained = next(id for id, name in where.items() if name == "train" and id.startswith(b"0/"))
    rows = [row for row in images([100, 100]) if row[2] not in (tested, trained)]
    after, _ = split(tmp_path, [*rows, (None, 0, trained, tested)], history=history)
    assert by_id(after)[trained] == "test"


def test_a_class_whose_pictures_all_have_a_split_is_not_moved(tmp_path):
    before, history = split(tmp_path, images([10, 10]))
    rest = [(None, label, id) for name in ("train", "val") for id, label in before[name]]
    after, _ = split(tmp_path, rest, history=history)
    assert after["test"] == [] and {*after["val"]} == {*before["val"]}
    grown, _ = split(tmp_path, [*rest, (None, 0, b"new 0"), (None, 1, b"new 1")], history=history)
    assert {id for id, _ in grown["test"]} == {b"new 0", b"new 1"}

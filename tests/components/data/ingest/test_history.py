"""Tests with real images that each image keeps its split from span to span."""

import hashlib
import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.ingest import history, manifest, prepare, tfrecord, verify
from components.data.ingest.images import check
from components.data.ingest.manifest import Recipe
from components.data.ingest.source import SPLITS, no_progress
from components.errors import DataRefused
from tests.helpers.spans import encoded

WITHOUT_HISTORY = Path(__file__).with_name("spans_without_history")  # written by version 0.1.0


def examples(data: Path, number: int) -> dict[str, tuple[str, bytes]]:
    """Return {id: (split, image)} of a span."""
    found = {}
    for split in SPLITS:
        for shard in sorted((data / f"span-{number}" / split).iterdir()):
            for record in tfrecord.read(shard):
                example = tfrecord.parse(record)
                found[example.id.decode()] = split, example.image
    return found


def by_picture(found) -> dict[str, str]:
    splits = {}
    for split, image in found.values():
        assert splits.setdefault(check(image).digest, split) == split
    return splits


def by_id(found) -> dict[str, str]:
    return {id: split for id, (split, _) in found.items()}


@pytest.fixture
def source(in_folder, image, tmp_path):
    """Image folder without splits, with 40 images of each of two classes."""
    files = {
        f"{name}/{row:02}.png": image(seed + row) for name, seed in (("cat", 0), ("dog", 1000)) for row in range(40)
    }
    return in_folder(tmp_path / "source", files)


@pytest.fixture
def data(source, tmp_path):
    """Data folder with one span of `source`."""
    prepare("images", tmp_path / "data", str(source))
    return tmp_path / "data"


def changed(path: Path, kind: str, **options) -> None:
    """Encode an image again."""
    pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
    path.unlink()
    path.with_suffix(".png" if kind == "PNG" else ".jpg").write_bytes(encoded(pixels, kind, **options))


def test_source_that_changes_in_every_way(source, data, image):
    """Images are added, removed, renamed, sorted into other classes and encoded again, all at once."""
    chance = random.Random(0)
    before = examples(data, 1)
    known = by_picture(before)
    files = sorted(source.rglob("*.png"))
    chance.shuffle(files)
    for path in files[:8]:
        path.unlink()
    for path in files[8:16]:
        path.rename(path.with_name(f"renamed {path.name}"))
    for path in files[16:24]:
        path.rename(source / ("dog" if path.parent.name == "cat" else "cat") / f"moved {path.name}")
    for path in files[24:32]:
        changed(path, "PNG", compress_level=0)
    for path in files[32:48]:
        changed(path, "JPEG", quality=40)
    for path in files[48:56]:
        shutil.copy(path, source / "cat" / f"copy of {path.parent.name} {path.name}")
    for row in range(30):
        (source / "dog" / f"new {row}.png").write_bytes(image(2000 + row))
    prepare("images", data, str(source))
    after = examples(data, 2)
    pictures = by_picture(after)
    assert {picture for picture in known if picture in pictures} and len(pictures) > 90
    assert all(pictures.get(picture, split) == split for picture, split in known.items())
    for path in files[32:48]:
        id = path.relative_to(source).as_posix()
        assert by_id(after)[id.replace(".png", ".jpg")] == by_id(before)[id]
    assert verify.problems(data) == []
    # The lossy images have other pixels now, by which a later span recognises them under any name.
    for path in source.rglob("*.jpg"):
        path.rename(path.with_name(f"again {path.name}"))
    prepare("images", data, str(source))
    assert by_picture(examples(data, 3)) == pictures


def test_picture_that_is_missing_in_one_span_returns_to_its_split(source, data, tmp_path):
    before = examples(data, 1)
    away = [id for id, (split, _) in before.items() if split != "train" and id.startswith("cat")][:2]
    for id in away:
        changed(source / id, "JPEG")
        (source / id).with_suffix(".jpg").rename(tmp_path / Path(id).with_suffix(".jpg").name)
    prepare("images", data, str(source))
    shutil.rmtree(data / "span-1")  # span 2 includes its history
    for id in away:
        shutil.move(tmp_path / Path(id).with_suffix(".jpg").name, source / "cat")
    prepare("images", data, str(source))
    after = by_id(examples(data, 3))
    assert [after[id.replace(".png", ".jpg")] for id in away] == [by_id(before)[id] for id in away]


def test_an_outer_folder_does_not_change_the_splits(source, data):
    """The images are encoded again with loss, so that only class and name are unchanged."""
    before = by_id(examples(data, 1))
    for path in sorted(source.rglob("*.png")):
        changed(path, "JPEG")
    (source / "pets").mkdir()
    for name in ("cat", "dog"):
        (source / name).rename(source / "pets" / name)
    prepare("images", data, str(source))
    after = by_id(examples(data, 2))
    assert {id.removeprefix("pets/").replace(".jpg", ".png"): split for id, split in after.items()} == before


def test_images_added_to_train_do_not_change_the_splits_of_others(files, folder, image, tmp_path):
    prepare("images", tmp_path / "data", str(folder))
    before = examples(tmp_path / "data", 1)
    for row in range(60):
        (folder / "train" / "cat" / f"new {row}.png").write_bytes(image(5000 + row))
    prepare("images", tmp_path / "data", str(folder))
    after = by_id(examples(tmp_path / "data", 2))
    assert {id: after[id] for id in before} == by_id(before)


def test_class_whose_test_image_is_gone(in_folder, image, tmp_path):
    """Known images keep their split, so the class needs a new image."""
    files = {f"{name}/{row}.png": image(10 * row + len(name)) for name in ("cat", "mouse") for row in range(5)}
    source = in_folder(tmp_path / "source", files)
    data = tmp_path / "data"
    prepare("images", data, str(source))
    for id, split in by_id(examples(data, 1)).items():
        if split == "test" and id.startswith("cat"):
            (source / id).unlink()
    with pytest.raises(DataRefused, match=r"no image in test \(first: 'cat', .*no earlier span holds .*another --out"):
        prepare("images", data, str(source))
    (source / "cat" / "new.png").write_bytes(image(77))
    prepare("images", data, str(source))
    assert by_id(examples(data, 2))["cat/new.png"] == "test"


def test_class_of_copies(in_folder, image, tmp_path):
    pictures = {f"cat/{row}.png": image(0) for row in range(9)} | {f"dog/{row}.png": image(row) for row in range(1, 9)}
    source = in_folder(tmp_path / "source", pictures)
    with pytest.raises(DataRefused, match=r"\(first: 'cat', with .* at least 3 different pictures$"):
        prepare("images", tmp_path / "data", str(source))


@pytest.fixture
def old(tmp_path):
    """Data folder of spans without history: span 1 with 6 images of each class, span 2 with 16."""
    return Path(shutil.copytree(WITHOUT_HISTORY, tmp_path / "old"))


def test_spans_without_history_are_continued(old, image, tmp_path):
    """If such spans contradict each other, a test picture of either stays out of train and val."""
    assert verify.problems(old) == []
    first, second = examples(old, 1), examples(old, 2)
    contradicting = {id for id in first if first[id][0] != second[id][0]}
    assert contradicting
    source = tmp_path / "grown"
    for number, (id, (_, content)) in enumerate(second.items()):
        path = source / id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name if number % 2 else f"renamed {path.name}").write_bytes(content)
    for name in ("cat", "dog", "fox"):
        for row in range(10):
            (source / name / f"new {row}.png").write_bytes(image(hash_of(name) + row))
    told = []
    prepare("images", old, str(source), progress=lambda what, *_: told.append(what))
    assert {"images of span-1 read", "images of span-2 read"} < set(told)
    third = by_picture(examples(old, 3))
    one, two = by_picture(first), by_picture(second)
    for picture, split in two.items():
        said = {split, one.get(picture, split)}
        assert third[picture] == max(said, key=SPLITS.index)
    # The next span does not read their images again.
    (source / "cat" / "one more.png").write_bytes(image(9999))
    told.clear()
    prepare("images", old, str(source), progress=lambda what, *_: told.append(what))
    assert not any(what.startswith("images of span") for what in told)
    fourth = by_picture(examples(old, 4))
    assert all(fourth[picture] == split for picture, split in third.items())
    assert verify.problems(old) == []


def test_test_picture_of_an_old_span_that_is_encoded_again_stays_in_test(old, tmp_path):
    """This holds even if a later span of the old version moved it to train."""
    first, second = examples(old, 1), examples(old, 2)
    assert any(split == "test" != second[id][0] for id, (split, _) in first.items())
    for id, (_, content) in second.items():
        path = (tmp_path / "again" / id).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), "JPEG", quality=80))
    prepare("images", old, str(tmp_path / "again"))
    third = {Path(id).with_suffix("").as_posix(): split for id, (split, _) in examples(old, 3).items()}
    for id, (split, _) in (first | second).items():
        said = {split, first.get(id, (split, b""))[0]}
        assert third[Path(id).with_suffix("").as_posix()] == max(said, key=SPLITS.index)


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def test_altered_history_is_read_from_the_shards_again(source, data, image):
    before = by_picture(examples(data, 1))
    path = data / "span-1" / history.NAME
    path.write_bytes(path.read_bytes()[:-1])
    assert [line.split(": expected sha256")[0] for line in verify.problems(data)] == [str(path)]
    (source / "cat" / "new.png").write_bytes(image(9999))
    prepare("images", data, str(source))
    after = by_picture(examples(data, 2))
    assert all(after[picture] == split for picture, split in before.items())


def test_history_that_no_manifest_lists(old, data):
    shutil.copy(data / "span-1" / history.NAME, old / "span-1" / history.NAME)
    assert len(verify.problems(old)) == 1


@pytest.mark.parametrize("name", ["manifest.json", "train/part-00000-of-00001.tfrecord"])
def test_span_that_cannot_be_read(old, source, name):
    (old / "span-1" / name).write_bytes(b"x")
    with pytest.raises(DataRefused, match=r"span-1.* restore .*span-1, or move it out of"):
        prepare("images", old, str(source))


def test_same_bytes_for_the_same_sources(source, data, image, in_archive, tmp_path):
    """The order of the files does not matter, and a second span is equal as well."""
    prepare("images", tmp_path / "other", str(source))
    (source / "cat" / "new.png").write_bytes(image(9999))
    prepare("images", data, str(source))
    packed = {path.relative_to(source).as_posix(): path.read_bytes() for path in sorted(source.rglob("*.png"))[::-1]}
    prepare("images", tmp_path / "other", str(in_archive(tmp_path / "x.tar", packed)))
    one, other = (manifest.read(folder / "span-2") for folder in (data, tmp_path / "other"))
    assert (one.shards, one.history) == (other.shards, other.history)


def test_history_covers_a_span_that_was_replaced(source, data, image):
    (source / "cat" / "new.png").write_bytes(image(9999))
    prepare("images", data, str(source))
    shutil.rmtree(data / "span-1")
    for row in range(20):
        (source / "dog" / f"other {row}.png").write_bytes(image(3000 + row))
    prepare("images", data, str(source), span=1, recipe=Recipe(seed=5))
    known = history.read(data, no_progress)
    (source / "cat" / "one more.png").write_bytes(image(9998))
    prepare("images", data, str(source))
    pictures = by_picture(examples(data, 3))
    assert all(pictures[picture] == split for picture, split in by_picture(examples(data, 1)).items())
    assert manifest.read(data / "span-3").history.spans.keys() == {1, 2}
    assert len(history.read(data, no_progress)) > len(known)

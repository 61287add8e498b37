from pathlib import Path

import pytest

from components.ingest import DataRefused
from components.ingest.files import Entry
from components.ingest.image_folder import records
from components.ingest.source import Record, Rejected


def found(*paths: str, data: bytes | None = b"x") -> list[Record | Rejected]:
    return list(records(Path("pets"), [Entry(path, None if path.endswith("/") else data) for path in paths]))


@pytest.mark.parametrize("top", ["", "pets-1.0/"])
@pytest.mark.parametrize("split", ["train", "val", "test", None])
def test_layouts(top, split):
    path = top + (f"{split}/" if split else "") + "cat/1.jpg"
    assert found(path) == [Record(split, "cat", path.encode(), b"x")]


def test_folders_on_the_way_are_no_classes():
    assert len(found("pets/", "pets/train/", "pets/train/cat/", "pets/train/cat/1.jpg")) == 1


def test_file_outside_a_class_folder():
    assert found("README", "cat/1.jpg")[0] == Rejected(b"README", "not in a class folder")


def test_file_that_is_too_large():
    (rejected,) = found("cat/1.jpg", data=None)
    assert rejected == Rejected(b"cat/1.jpg", "larger than 67,108,864 bytes", "cat")


@pytest.mark.parametrize("other", ["dog/1.jpg", "b/train/dog/1.jpg", "b/dog/1.jpg"])
def test_mixed_layouts_are_refused(other):
    with pytest.raises(DataRefused, match=f"'train/cat/1.jpg' and '{other}' do not fit one layout"):
        found("train/cat/1.jpg", other)


def test_empty_class_folder_is_refused():
    with pytest.raises(DataRefused, match="pets: class folder 'test/dog' is empty"):
        found("train/dog/", "train/dog/1.jpg", "test/dog/", "test/cat/", "test/cat/1.jpg")


@pytest.mark.parametrize("paths", [(), ("README",), ("cat/",), ("train/", "train/1.jpg"), ("pets/test/1.jpg",)])
def test_no_image_is_refused(paths):
    with pytest.raises(DataRefused, match="pets: holds no image in a class folder"):
        found(*paths)

from pathlib import Path

import pytest

from components.data.ingest.files import Entry
from components.data.ingest.image_folder import records
from components.data.ingest.source import Record, RejectedRecord
from components.errors import DataRefused


def found(*paths: str, data: bytes | None = b"x") -> list[Record | RejectedRecord]:
    return list(records(Path("pets"), [Entry(path, None if path.endswith("/") else data) for path in paths]))


@pytest.mark.parametrize("top", ["", "pets-1.0/"])
@pytest.mark.parametrize("split", ["train", "val", "test", None])
def test_layouts(top, split):
    path = top + (f"{split}/" if split else "") + "cat/1.jpg"
    assert found(path) == [Record(split, "cat", path.encode(), b"x")]


@pytest.mark.parametrize("top", ["", "pets/"])
def test_folder_of_val_may_be_named_validation(top):
    assert [record.split for record in found(f"{top}train/cat/1.jpg", f"{top}validation/cat/1.jpg")] == ["train", "val"]


def test_outer_folders_are_not_classes():
    assert len(found("pets/", "pets/train/", "pets/train/cat/", "pets/train/cat/1.jpg")) == 1


def test_file_outside_a_class_folder():
    assert found("stray.jpg", "cat/1.jpg")[0] == RejectedRecord(b"stray.jpg", "not in a class folder")


@pytest.mark.parametrize(
    "path", ["README", "README.txt", "pets/labels.csv", "pets/Thumbs.db", "desktop.ini", "pets/cat/Thumbs.db"]
)
def test_file_that_is_obviously_not_an_image(path):
    passed_over = RejectedRecord(path.encode(), "not an image file", passed_over=True)
    for paths in ((path, "pets/cat/1.jpg"), ("pets/cat/1.jpg", path)):
        results = found(*paths)
        assert passed_over in results and Record(None, "cat", b"pets/cat/1.jpg", b"x") in results


@pytest.mark.parametrize("path", ["pets/README.md", "pets/lists/train.txt", "LICENSE", "pets/train/labels.csv"])
def test_file_beside_the_splits(path):
    for paths in ((path, "pets/train/cat/1.jpg"), ("pets/train/cat/1.jpg", path)):
        assert RejectedRecord(path.encode(), "not an image file", passed_over=True) in found(*paths)


def test_text_in_a_class_folder_is_not_passed_over():
    for paths in (("cat/notes.txt", "cat/1.jpg"), ("cat/1.jpg", "cat/notes.txt")):
        assert Record(None, "cat", b"cat/notes.txt", b"x") in found(*paths)


@pytest.mark.parametrize("top", ["", "pets/"])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", ["train", "val", "test", "Train", "TEST", "validation", "Validation", "val "])
def test_class_folder_with_the_name_of_a_split(top, order, name):
    paths = [f"{top}bus/1.jpg", f"{top}{name}/1.jpg", f"{top}car/1.jpg"]
    with pytest.raises(DataRefused, match=f"pets: folder '{top}{name}' has the name of a split. If it is a class"):
        found(*paths[::order])


@pytest.mark.parametrize("order", [1, -1])
def test_empty_folder_with_the_name_of_a_split_beside_class_folders(order):
    with pytest.raises(DataRefused, match="pets: folder 'train' has the name of a split"):
        found(*["bus/1.jpg", "car/1.jpg", "train/"][::order])


@pytest.mark.parametrize("top", ["", "pets/"])
@pytest.mark.parametrize("name", ["Train", "Validation", "VAL"])
def test_misspelled_split(top, name):
    with pytest.raises(DataRefused, match=f"'{top}{name}' has the name of a split.* name it '{name.lower()}'"):
        found(f"{top}test/cat/1.jpg", f"{top}{name}/cat/1.jpg")


@pytest.mark.parametrize("name", ["train", "Train", "validation", "val"])
def test_class_with_the_name_of_a_split_inside_a_split(name):
    assert [record.class_name for record in found("train/bus/1.jpg", f"train/{name}/1.jpg")] == ["bus", name]


def test_image_directly_in_a_split():
    paths = ("train/", "train/1.jpg", "train/cat/1.jpg", "test/cat/1.jpg")
    assert found(*paths)[0] == RejectedRecord(b"train/1.jpg", "not in a class folder")


@pytest.mark.parametrize("top, class_folder", [("", "train/cat"), ("pets/", "pets/train/cat"), ("pets/", "pets/cat")])
@pytest.mark.parametrize("in_archive", [False, True])
def test_class_folder_with_images_only_in_subfolders(top, class_folder, in_archive):
    other = class_folder.replace("cat", "dog")
    folders = [] if in_archive else [f"{class_folder}/", f"{class_folder}/persian/"]
    with pytest.raises(DataRefused, match=f"class folder '{class_folder}' holds images only in subfolders, .*persian"):
        found(f"{other}/1.jpg", *folders, f"{class_folder}/persian/1.jpg")


def test_subfolder_of_a_class_folder_with_images():
    rejected = found("train/cat/1.jpg", "train/cat/persian/1.jpg")[1]
    assert rejected == RejectedRecord(b"train/cat/persian/1.jpg", "in a subfolder of a class folder, which is not read")


def test_only_subfolder_of_a_class_folder_is_named_like_a_split():
    with pytest.raises(DataRefused, match="class folder 'dog' holds images only in subfolders"):
        found("cat/1.jpg", "dog/", "dog/test/1.jpg")


def test_file_that_is_too_large():
    (rejected,) = found("cat/1.jpg", data=None)
    assert rejected == RejectedRecord(b"cat/1.jpg", "larger than 67,108,864 bytes", "cat")


@pytest.mark.parametrize("other", ["dog/1.jpg", "b/train/dog/1.jpg", "b/dog/1.jpg"])
def test_mixed_layouts_are_refused(other):
    with pytest.raises(DataRefused, match=f"'train/cat/1.jpg' and '{other}' do not fit one layout"):
        found("train/cat/1.jpg", other)


def test_empty_class_folder_is_refused():
    with pytest.raises(DataRefused, match="pets: class folder 'test/dog' holds no images"):
        found("train/dog/", "train/dog/1.jpg", "test/dog/", "test/dog/Thumbs.db", "test/cat/", "test/cat/1.jpg")


@pytest.mark.parametrize("paths", [(), ("README",), ("cat/",), ("train/", "train/1.jpg"), ("pets/test/1.jpg",)])
def test_source_without_images_is_refused(paths):
    with pytest.raises(DataRefused, match="pets: holds no image in a class folder"):
        found(*paths)

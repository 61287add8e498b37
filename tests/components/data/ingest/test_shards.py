import pytest

from components.data.ingest.shards import Shard, find_shards
from components.errors import DataRefused


def found(in_folder, root, *names):
    return find_shards(in_folder(root, dict.fromkeys(names, b"")), (".tar",))


@pytest.mark.parametrize(
    "name, split",
    [
        ("train-000000.tar", "train"),
        ("flowers_Validation.01.TAR", "val"),
        ("my-testing-set-3.tar", "test"),
        ("latest-0.tar", None),
        ("000.tar", None),
        ("dev/000.tar", "val"),
        ("train/test-0.tar", "train"),
        ("data/test-0.tar", "test"),
    ],
)
def test_split_of_a_file(in_folder, tmp_path, name, split):
    assert found(in_folder, tmp_path, name, ".hidden.tar", "README.md") == [Shard(name, split)]


@pytest.mark.parametrize(
    "names, problem",
    [
        (("train-test-0.tar",), "has the words of several splits"),
        (("train-0.tar", "0.tar"), "'0.tar' has no split in its name, but other files have"),
        (("a/0.tar", "b/0.tar"), "'a/', 'b/' each hold .tar files: name one of these folders"),
        (("train/0.tar", "b/0.tar"), "name one of these folders"),
    ],
)
def test_files_that_are_ambiguous(in_folder, tmp_path, names, problem):
    with pytest.raises(DataRefused, match=problem):
        found(in_folder, tmp_path, *names)


@pytest.mark.parametrize("beside", ["1.jpg", "cat/1.PNG"])
def test_files_beside_images(in_folder, tmp_path, beside):
    assert found(in_folder, tmp_path, "backup.tar", beside) == []


def test_link_instead_of_a_file(in_folder, tmp_path):
    (tmp_path / "0.tar").symlink_to("/etc/hosts")
    with pytest.raises(DataRefused, match=r"0\.tar: a link or special file"):
        found(in_folder, tmp_path)

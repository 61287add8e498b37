import hashlib
import json
import os
import shutil

import pytest

from components.data.ingest import prepare, tfrecord, verify
from components.data.ingest.manifest import NAME, Recipe
from components.errors import UsageError


@pytest.fixture(scope="module")
def prepared(files, in_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    source = in_folder(root / "source", files)
    prepare("images", root / "data", str(source), recipe=Recipe(examples_per_shard=20))
    prepare("images", root / "data", str(source), recipe=Recipe(examples_per_shard=20, seed=1))
    return root / "data"


@pytest.fixture
def data(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "data")


def edit(span, **changes):
    path = span / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_sound(data):
    assert verify.problems(data) == []
    assert verify.problems(data / "span-2") == []


def test_missing_shard(data):
    shard = data / "span-1" / "train" / "part-00001-of-00003.tfrecord"
    shard.unlink()
    (line,) = verify.problems(data)
    assert line.startswith(f"{shard}: expected sha256 ")
    assert line.endswith("found no readable file (No such file or directory)")
    assert verify.problems(data / "span-2") == []


def test_altered_shard(data):
    shard = data / "span-2" / "val" / "part-00000-of-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (line,) = verify.problems(data)
    expected = json.loads((data / "span-2" / NAME).read_text())["shards"]["val/" + shard.name]["sha256"]
    assert line.startswith(f"{shard}: expected sha256 {expected}, found ")


def test_extra_files(data):
    for path in ("train/part-9.tfrecord", "notes.txt", "other/part-0.tfrecord"):
        (data / "span-1" / path).parent.mkdir(exist_ok=True)
        (data / "span-1" / path).write_bytes(b"")
    lines = verify.problems(data)
    assert [line.split(": ")[0] for line in lines] == [
        str(data / "span-1" / path) for path in ("notes.txt", "other", "other/part-0.tfrecord", "train/part-9.tfrecord")
    ]
    assert all("not listed in the manifest" in line for line in lines)


def test_wrong_counts(data):
    counts = json.loads((data / "span-1" / NAME).read_text())["counts"]
    dogs = counts["val"]["dog"]
    counts["val"]["dog"] += 1
    edit(data / "span-1", counts=counts)
    assert verify.problems(data) == [
        f"{data / 'span-1' / 'val'}: class 'dog': expected {dogs + 1} examples, found {dogs}"
    ]


@pytest.mark.parametrize(
    "records, found",
    [
        (
            [tfrecord.frame(tfrecord.example(b"", 7, b"a"))],
            "(record 1): 'a': feature 'label': expected 0 to 2, found 7",
        ),
        (
            [tfrecord.frame(tfrecord.example(b"", 0, b"a")), tfrecord.frame(b"")],
            "expected whole examples, found after 'a' (record 2): feature 'id': expected one bytes value, found none",
        ),
        ([b"no record"], "expected whole examples, found at its beginning (record 1): "),
        ([], "expected 6 examples, found 0"),
    ],
)
def test_shard_whose_digest_was_forged(data, records, found):
    span, name = data / "span-1", "val/part-00000-of-00001.tfrecord"
    (span / name).write_bytes(b"".join(records))
    shards = json.loads((span / NAME).read_text())["shards"]
    shards[name]["sha256"] = hashlib.sha256((span / name).read_bytes()).hexdigest()
    shards[name]["examples"] = max(len(records), 1) if records else 6
    edit(span, shards=shards)
    assert any(found in line for line in verify.problems(data))


def test_no_manifest(data):
    (data / "span-2" / NAME).write_text("{}")
    (line,) = verify.problems(data)
    assert line == f"{data / 'span-2' / NAME}: kind: Field required"


def test_schema_of_other_classes(data):
    path = data / "schema.pbtxt"
    path.write_text(path.read_text().replace('"dog"', '"owl"'))
    lines = verify.problems(data)
    assert lines == [
        f"{path}: expected classes ['cat', 'dog', 'fox'] ({span}), found ['cat', 'owl', 'fox']"
        for span in ("span-1", "span-2")
    ]


def test_schema_of_other_features(data):
    path = data / "schema.pbtxt"
    path.write_text(path.read_text().replace("max: 2", "max: 5").replace('name: "id"', 'name: "key"'))
    assert verify.problems(data / "span-1") == [
        f"{path}: feature 'label': expected INT from 0 to 2, found INT from 0 to 5",
        f"{path}: feature 'id' is missing",
    ]


def test_no_schema(data):
    (data / "schema.pbtxt").unlink()
    assert all("schema.pbtxt: missing" in line for line in verify.problems(data))


def test_no_span(tmp_path):
    with pytest.raises(UsageError, match="holds no span"):
        verify.problems(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["span-1", "span-1/manifest.json", "span-1/train", "span-1/val/part-00000-of-00001.tfrecord", "schema.pbtxt"],
)
@pytest.mark.parametrize("target", [None, "/dev/zero", "nowhere", "the same"])
def test_link_or_special_file(data, name, target):
    """Such a file is reported. A pipe does not block the check, and a device is not read."""
    path = data / name
    path.rename(data / "moved")
    if target is None:
        os.mkfifo(path)
    else:
        path.symlink_to(data / "moved" if target == "the same" else target)
    if name == "span-1" and target != "the same":
        assert verify.problems(data) == []  # ignored, like any other file beside the spans
    else:
        assert any(line.startswith(f"{path}: ") and "a link or special file" in line for line in verify.problems(data))


def test_data_folder_may_be_a_link(data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    assert verify.problems(tmp_path / "link") == []


def test_huge_manifest_is_not_read(data):
    os.truncate(data / "span-1" / NAME, 10 * 2**30)
    assert any("larger than 67,108,864 bytes" in line for line in verify.problems(data))

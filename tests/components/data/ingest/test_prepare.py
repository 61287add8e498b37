"""Tests of `components.data.ingest.prepare`, which writes a span completely or not at all."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.data.ingest import MAX_SPAN, manifest, prepare, schema, spans, tfrecord
from components.data.ingest.locks import folder_lock
from components.data.ingest.manifest import Recipe
from components.data.ingest.source import SPLITS
from components.errors import DataRefused, UsageError
from trainer.examples import class_names

ROOT = Path(__file__).parents[4]
REAL = ROOT.parent / "shared" / "data" / "cifar10-images.tar.xz"
SMALL_SHARDS = Recipe(examples_per_shard=8)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written_at(path: Path) -> tuple[int, int]:
    """Return values that change if the path is written to or replaced, but not if it is read."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def examples(split: Path) -> list[bytes]:
    return [record for path in sorted(split.glob("part-*.tfrecord")) for record in tfrecord.read(path)]


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def test_the_trainer_can_read_a_span(tf, folder, files, tmp_path):
    out = tmp_path / "out"
    written = prepare("images", out, str(folder), recipe=SMALL_SHARDS)
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "id": tf.io.FixedLenFeature([], tf.string),
    }
    names = class_names(schema.read(out))
    seen = {}
    for split in SPLITS:
        shards = tf.data.Dataset.list_files(str(out / "span-1" / split / "part-*.tfrecord"), shuffle=False)
        for record in shards.flat_map(tf.data.TFRecordDataset).as_numpy_iterator():
            example = tf.io.parse_single_example(record, features)
            id = example["id"].numpy().decode()
            assert example["image"].numpy() == files[id]
            assert names[example["label"]] == id.split("/")[1]
            seen[id] = split
    assert seen.keys() == files.keys()
    assert written.counts["test"] == {"cat": 3, "dog": 3, "fox": 3}
    for name in names:
        assert written.counts["val"][name] >= 1
        assert written.counts["train"][name] + written.counts["val"][name] == 20
    assert {id for id, split in seen.items() if split == "test"} == {id for id in files if id.startswith("test/")}
    shards = [shard.examples for name, shard in written.shards.items() if name.startswith("train/")]
    assert sum(shards) == written.examples("train") and max(shards) == 8 and min(shards) >= 7
    assert manifest.read(out / "span-1") == written
    assert (written.image_shape, written.rejected, written.class_names) == ((8, 8, 3), (), ("cat", "dog", "fox"))


def test_no_temporary_files_remain(folder, tmp_path):
    prepare("images", tmp_path / "out", str(folder))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "schema.pbtxt", "span-1"]
    assert sorted(path.name for path in (tmp_path / "out" / "span-1").iterdir()) == [
        "history.npy",
        "manifest.json",
        *sorted(SPLITS),
    ]


def test_equal_sources_give_equal_spans(folder, files, in_archive, tmp_path):
    packed = in_archive(tmp_path / "source.tar.gz", dict(reversed(files.items())))
    prepare("images", tmp_path / "1", str(folder))
    prepare("images", tmp_path / "2", str(packed))
    one, two = tree(tmp_path / "1" / "span-1"), tree(tmp_path / "2" / "span-1")
    assert one.pop("manifest.json") != two.pop("manifest.json")  # another source and digest
    assert one == two


def test_unchanged_source_is_not_written_again(folder, tmp_path):
    out = tmp_path / "out"
    first = prepare("images", out, str(folder))
    before = written_at(out / "span-1")
    assert prepare("images", out, str(folder)) == first
    assert prepare("images", out, str(folder), span=1) == first
    assert written_at(out / "span-1") == before
    assert spans(out) == [1]


def test_changed_source_is_the_next_span(folder, image, tmp_path):
    out = tmp_path / "out"
    prepare("images", out, str(folder), span=9)
    schema_before = written_at(out / schema.NAME)
    (folder / "train" / "cat" / "new.png").write_bytes(image(1000))
    written = prepare("images", out, str(folder))
    assert spans(out) == [9, 10]
    assert written.counts["train"]["cat"] + written.counts["val"]["cat"] == 21
    assert written_at(out / schema.NAME) == schema_before


def test_another_recipe_is_the_next_span(folder, tmp_path):
    out = tmp_path / "out"
    prepare("images", out, str(folder))
    prepare("images", out, str(folder), recipe=Recipe(seed=1))
    assert spans(out) == [1, 2]
    ids = [examples(out / f"span-{number}" / "val") for number in (1, 2)]
    assert ids[0] != ids[1]


def test_no_span_can_follow_the_highest_number(folder, tmp_path):
    out = tmp_path / "out"
    prepare("images", out, str(folder), span=MAX_SPAN)
    with pytest.raises(UsageError, match=f"has span {MAX_SPAN}, the highest"):
        prepare("images", out, str(folder), recipe=Recipe(seed=1))
    assert {path.name for path in out.iterdir()} == {".lock", "schema.pbtxt", f"span-{MAX_SPAN}"}


def test_only_some_classes_of_a_source(folder, files, tmp_path):
    out = tmp_path / "out"
    (folder / "README").write_text("of no class, so no rejected record of these")
    written = prepare("images", out, str(folder), recipe=Recipe(classes=("cat", "fox"), per_class=10))
    assert written.class_names == ("cat", "fox") == tuple(class_names(schema.read(out)))
    assert written.counts == {"train": {"cat": 9, "fox": 9}, "val": {"cat": 1, "fox": 1}, "test": {"cat": 3, "fox": 3}}
    ids = [tfrecord.parse(record).id.decode() for split in SPLITS for record in examples(out / "span-1" / split)]
    assert len({*ids}) == 26 and {id.split("/")[1] for id in ids} == {"cat", "fox"}
    assert prepare("images", out, str(folder), recipe=written.recipe) == written
    prepare("images", out, str(folder), recipe=Recipe(classes=("cat", "fox"), per_class=12))
    assert spans(out) == [1, 2]


def test_a_class_that_the_source_does_not_have(folder, tmp_path):
    with pytest.raises(UsageError, match=r"--classes fix: .* no such class: did you mean fox\? it has cat, dog, fox"):
        prepare("images", tmp_path / "out", str(folder), recipe=Recipe(classes=("cat", "fix")))
    assert not spans(tmp_path / "out")


def test_span_that_exists_with_other_content(folder, image, tmp_path):
    out = tmp_path / "out"
    prepare("images", out, str(folder))
    before = tree(out)
    (folder / "train" / "cat" / "new.png").write_bytes(image(1000))
    with pytest.raises(UsageError, match=r"--span 1: .*span-1 holds other content .*: use --span 2"):
        prepare("images", out, str(folder), span=1)
    assert tree(out) == before


def test_later_span_with_other_classes(folder, tmp_path):
    out = tmp_path / "out"
    prepare("images", out, str(folder))
    for split in ("train", "test"):
        (folder / split / "fox").rename(folder / split / "owl")
    with pytest.raises(DataRefused, match=r"schema\.pbtxt: missing classes \['fox'\], unexpected classes \['owl'\]"):
        prepare("images", out, str(folder))
    assert spans(out) == [1]


def test_schema_without_a_span(folder, tmp_path):
    """A writer that is killed between its two renames leaves a schema but no span."""
    out = tmp_path / "out"
    out.mkdir()
    (out / schema.NAME).write_text(schema.text(schema.build(["other"])))
    prepare("images", out, str(folder))
    assert class_names(schema.read(out)) == ["cat", "dog", "fox"]


def test_rejected_records_are_counted_and_left_out(folder, image, tmp_path):
    (folder / "README").write_text("hello")
    (folder / "stray.png").write_bytes(image(2))
    (folder / "train" / "cat" / "broken.png").write_bytes(image(0)[:50])
    (folder / "train" / "dog" / "wide.png").write_bytes(image(1, size=(9, 8)))
    for row in range(150):
        (folder / "train" / "fox" / f"{row}.txt").write_text("no image")
    written = prepare("images", tmp_path / "out", str(folder), recipe=Recipe(max_rejected=0.9))
    assert [(r.reason, r.count, len(r.ids)) for r in written.rejected] == [
        ("cut or damaged", 1, 1),
        ("not a PNG or JPEG image", 150, 100),
        ("not in a class folder", 1, 1),
    ]
    assert written.rejected[0].ids == ("train/cat/broken.png",)
    assert (written.passed_over.count, written.passed_over.ids) == (1, ("README",))
    assert written.image_shape is None
    assert written.examples("train") + written.examples("val") == 61


def test_too_many_rejected_records(folder, tmp_path):
    (folder / "train" / "cat" / "broken.png").write_bytes(b"")
    with pytest.raises(DataRefused) as raised:
        prepare("images", tmp_path / "out", str(folder))
    assert str(raised.value) == (
        f"{folder}: 1 of 70 records rejected (1.4%), the bound is 1.0%: "
        "1: not a PNG or JPEG image (first: train/cat/broken.png); "
        "repair or remove them, or allow more with --max-rejected"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_id_that_is_not_unicode(folder, image, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (folder / "train" / "cat" / name).write_bytes(image(1000))
    (folder / "train" / "dog" / name).write_bytes(b"")
    written = prepare("images", tmp_path / "out", str(folder), recipe=Recipe(max_rejected=0.1))
    assert written.rejected[0].ids == (r"train/dog/caf\xe9.png",)
    kept = [record for split in ("train", "val") for record in examples(tmp_path / "out" / "span-1" / split)]
    assert any(b"train/cat/caf\xe9.png" in record for record in kept)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda root: shutil.copytree(root / "train/cat", root / "train/Cat"), "'Cat' and 'cat' differ only by case"),
        (
            lambda root: shutil.rmtree(root / "test/fox"),
            r"1 of 3 classes have no image in test \(first: 'fox', .*put images of it into test/<class>/",
        ),
        (lambda root: shutil.copytree(root / "train/cat", root / "train/cat "), "differ only by spaces, case or"),
        (
            lambda root: [shutil.copytree(root / "train/cat", root / f"train/{name}") for name in ("\xe9", "e\u0301")],
            r"\('e\\u0301' and '\\xe9'\) differ only by spaces, case or the encoding of accents: merge them",
        ),
        (lambda root: shutil.rmtree(root / "test"), "3 of 3 classes have no image in test"),
        (lambda root: shutil.rmtree(root / "train/fox"), "1 of 3 classes have no image in train"),
        (lambda root: (root / "train/owl").mkdir(), "class folder 'train/owl' holds no images"),
        (lambda root: (root / "train/fox").rename(root / "train/f\nx"), r"class name 'f\\nx' is not printable"),
        (lambda root: [shutil.rmtree(path) for path in root.glob("*/[cd]*")], "at least 2 classes are needed"),
    ],
    ids=["case", "no test class", "space", "accent", "no test", "no train class", "empty", "newline", "one class"],
)
def test_source_that_is_not_a_data_set(folder, tmp_path, change, message):
    change(folder)
    with pytest.raises(DataRefused, match=message):
        prepare("images", tmp_path / "out", str(folder))
    assert spans(tmp_path / "out") == []


def test_later_span_with_another_spelling_of_a_class(folder, tmp_path):
    for split in ("train", "test"):
        (folder / split / "fox").rename(folder / split / "caf\xe9")
    prepare("images", tmp_path / "out", str(folder))
    for split in ("train", "test"):
        (folder / split / "caf\xe9").rename(folder / split / "cafe\u0301")
    with pytest.raises(DataRefused, match=r"\('caf\\xe9' and 'cafe\\u0301'\) .* rename the second like the first"):
        prepare("images", tmp_path / "out", str(folder))


def test_a_table_without_a_label(folder, tmp_path):
    rows = "".join(f"{path.relative_to(folder)},\n" for path in sorted((folder / "train").rglob("*.png")))
    (folder / "labels.csv").write_text("path,label\n" + rows)
    with pytest.raises(DataRefused, match=r"no record has a class: \d+: no label of 1 .*: enter it in the table"):
        prepare("images", tmp_path / "out", str(folder / "labels.csv"))


def test_class_whose_images_are_all_rejected(folder, tmp_path):
    (folder / "train" / "owl").mkdir()
    (folder / "train" / "owl" / "1.png").write_text("")
    with pytest.raises(DataRefused, match=r"class 'owl' was rejected.*: 1: not a PNG .*first: train/owl/1.png"):
        prepare("images", tmp_path / "out", str(folder), recipe=Recipe(max_rejected=0.5))


def test_archive_that_contains_a_file_twice(files, image, in_archive, tmp_path):
    archive = in_archive(tmp_path / "x.tar", {**files, "./train/cat/00.png": image(1000)})
    with pytest.raises(DataRefused, match=r"x\.tar: holds 'train/cat/00\.png' more than once"):
        prepare("images", tmp_path / "out", str(archive))


def test_cut_archive_leaves_nothing(files, in_archive, tmp_path):
    archive = in_archive(tmp_path / "x.tar.gz", files)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataRefused, match=r"x\.tar\.gz: cut, damaged or not a tar archive"):
        prepare("images", tmp_path / "out", str(archive))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "kind, source, message",
    [
        ("pets", None, "no source 'pets': use one of cifar10, images, sample"),
        ("images", None, "`images` needs --source"),
        ("images", "nowhere", "--source 'nowhere': no such file or folder"),
        ("images", "ftp://host/x.tar", "no such file or folder"),
        ("sample", "x", "takes no --source, got 'x'"),
    ],
)
def test_usage(tmp_path, kind, source, message):
    with pytest.raises(UsageError, match=message):
        prepare(kind, tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def test_span_below_one(tmp_path):
    with pytest.raises(UsageError, match="span 0: use a number from 1"):
        prepare("sample", tmp_path, span=0)


def test_source_whose_path_is_not_unicode(folder, tmp_path):
    source = folder.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    assert prepare("images", tmp_path / "out", str(source)).source.endswith(r"caf\xe9")


def test_one_writer_at_a_time(folder, tmp_path):
    with folder_lock(tmp_path / "out"), pytest.raises(UsageError, match="another `vitpipe data prepare` is writing"):
        prepare("images", tmp_path / "out", str(folder))


def test_out_that_is_a_file(folder, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataRefused, match="out: File exists"):
        prepare("images", tmp_path / "out", str(folder))


SCRIPT = """
import sys
from pathlib import Path
from components.data.ingest import prepare
from components.errors import DataRefused
try:
    prepare("images", Path(sys.argv[2]), sys.argv[1])
except DataRefused as error:
    sys.exit(f"error: {error}")
"""


def start(source: Path, out: Path, *before: str) -> subprocess.Popen:
    command = [*before, sys.executable, "-c", SCRIPT, str(source), str(out)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_no_space_left(image, in_folder, tmp_path):
    """The images do not fit into a real file system of 1 MB, in its own mount namespace."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("unshare cannot mount here")
    files = {f"{name}/{row}.png": image(row, size=(100, 100)) for name in ("cat", "dog") for row in range(30)}
    out = tmp_path / "out"
    out.mkdir()
    source = in_folder(tmp_path / "source", files)
    mount = f'mount -t tmpfs -o size=1m tmpfs {out} && "$@"; status=$?; ls -A {out} >&2; exit $status'
    process = start(source, out, "unshare", "-rm", "sh", "-c", mount, "sh")
    errors = process.communicate()[1]
    assert process.returncode == 1
    assert "error: " in errors and "No space left on device;" in errors and "bytes are free" in errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == ".lock"


@pytest.fixture(scope="module")
def slow_source(image, in_folder, tmp_path_factory):
    """Source that takes long enough to be interrupted while it is read."""
    files = {f"{name}/{row}.png": image(row, size=(400, 400)) for name in ("cat", "dog") for row in range(100)}
    return in_folder(tmp_path_factory.mktemp("slow"), files)


def wait_for_spool(out: Path) -> Path:
    """Wait until the temporary folder contains images, and return the folder."""
    for _ in range(600):
        for spool in out.glob(".tmp-span-*/spool"):
            if spool.stat().st_size:
                return spool.parent
        time.sleep(0.05)
    raise AssertionError("no image arrived")


def test_killed_writer(slow_source, tmp_path):
    out = tmp_path / "out"
    process = start(slow_source, out)
    leftover = wait_for_spool(out)
    process.kill()
    assert process.communicate()[1] == ""  # ends when the last child has ended
    assert leftover.exists() and spans(out) == []
    prepare("images", out, str(slow_source))
    assert spans(out) == [1] and not list(out.glob(".tmp-*"))


def test_interrupted_writer(slow_source, tmp_path):
    out = tmp_path / "out"
    process = start(slow_source, out)
    wait_for_spool(out)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode != 0
    assert [path.name for path in out.iterdir()] == [".lock"]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is absent")
def test_all_of_cifar10(tmp_path):
    written = prepare("cifar10", tmp_path, str(REAL))
    assert written.examples("train") + written.examples("val") == 50_000 and written.examples("test") == 10_000
    assert all(430 < count < 570 for count in written.counts["val"].values())
    assert (written.image_shape, written.rejected) == ((32, 32, 3), ())
    labels = [tfrecord.parse(record).label for record in examples(tmp_path / "span-1" / "train")]
    assert all(200 < labels[:2500].count(label) < 300 for label in range(10))

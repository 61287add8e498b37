"""The span that the workers of an engine write is equal to that of a single process."""

import io
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from components.data.ingest import file_parts, prepare, spans, tfrecord
from components.data.ingest.manifest import Recipe
from components.errors import DataRefused, EngineError, UsageError
from pipeline.beam_tasks import TaskRunner
from pipeline.settings.beam import BeamSettings

RECIPE = Recipe(examples_per_shard=8, max_rejected=0.2)
CLASSES = ("cat", "dog", "fox")
IN_MEMORY = TaskRunner(BeamSettings())


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(file_parts, "_MAX_FILES", 30)


def one_colour():
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


def as_folder(root, files, in_folder, in_archive):
    """A folder with files of every kind that is rejected, passed over or remarked on."""
    first = files["train/cat/00.png"]
    return in_folder(
        root,
        {
            **files,
            "README.md": b"of no class",
            "test/cat/-notes.txt": b"in a class folder, before its first image",
            "train/cat/a.webp": b"RIFF0000WEBP",
            "train/dog/cut.png": first[:-20],
            "train/dog/deeper/00.png": first,
            "train/fox/LICENSE": b"beside images",
            "train/fox/Thumbs.db": b"",
            os.fsdecode(b"train/fox/caf\xe9.png"): one_colour(),
        },
    )


def as_table(root, files, in_folder, in_archive):
    folder = in_folder(root, files)
    rows = [{"path": path, "label": path.split("/")[1], "split": path.split("/")[0]} for path in files]
    rows[5]["path"], rows[6]["path"], rows[7]["label"] = "train/nowhere.png", "", ""
    pd.DataFrame(rows).to_csv(folder / "photos.csv", index=False)
    return folder / "photos.csv"


def as_tfds(root, files, in_folder, in_archive):
    described = {
        "features.json": {
            "featuresDict": {
                "features": {
                    "image": {"pythonClassName": "tfds.Image"},
                    "label": {"pythonClassName": "tfds.ClassLabel", "classLabel": {"numClasses": "3"}},
                }
            }
        },
        "dataset_info.json": {"name": "pets", "fileFormat": "tfrecord"},
    }
    in_folder(root, {name: json.dumps(content).encode() for name, content in described.items()})
    (root / "label.labels.txt").write_text("\n".join(CLASSES))
    for split, shards in (("train", 3), ("test", 1)):
        examples = [
            tfrecord.example(data, 9 if path == "train/cat/03.png" else CLASSES.index(path.split("/")[1]), b"")
            for path, data in files.items()
            if path.startswith(split)
        ]
        for number in range(shards):
            name = f"pets-{split}.tfrecord-{number:05}-of-{shards:05}"
            (root / name).write_bytes(b"".join(map(tfrecord.frame, examples[number::shards])))
    return root


def as_webdataset(root, files, in_folder, in_archive):
    root.mkdir()
    for split, shards in (("train", 3), ("test", 1)):
        paths = [path for path in files if path.startswith(split)]
        for number in range(shards):
            members = {}
            for row, path in enumerate(paths[number::shards]):
                members |= {f"{row:03}.png": files[path], f"{row:03}.cls": path.split("/")[1].encode()}
            in_archive(root / f"pets-{split}-{number}.tar", members)
    return root


def as_huggingface(root, files, in_folder, in_archive):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split, shards in (("train", 3), ("test", 1)):
        paths = [path for path in files if path.startswith(split)]
        for number in range(shards):
            images = [{"bytes": files[path], "path": path} for path in paths[number::shards]]
            labels = [path.split("/")[1] for path in paths[number::shards]]
            path = root / "data" / f"{split}-{number:05}-of-{shards:05}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pa.parquet.write_table(pa.table({"image": pa.array(images, kind), "label": labels}), path)
    return root


SOURCES = (as_folder, as_table, as_tfds, as_webdataset, as_huggingface)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SOME_CLASSES = RECIPE.model_copy(update={"classes": ("cat", "fox"), "per_class": 10})


@pytest.mark.parametrize(
    ("make", "recipe"),
    [*((make, RECIPE) for make in SOURCES), (as_folder, SOME_CLASSES), (as_webdataset, SOME_CLASSES)],
)
def test_the_span_is_equal_to_that_of_one_process(make, recipe, files, in_folder, in_archive, tmp_path):
    source = str(make(tmp_path / "source", files, in_folder, in_archive))
    expected = prepare("images", tmp_path / "one", source, recipe=recipe)
    assert prepare("images", tmp_path / "many", source, recipe=recipe, run_tasks=IN_MEMORY) == expected
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [".lock", "schema.pbtxt", "span-1"]


def test_rejected_files_are_counted_over_all_parts(files, in_folder, in_archive, tmp_path):
    """Otherwise the comparison of the folder would compare empty lists."""
    source = as_folder(tmp_path / "source", files, in_folder, in_archive)
    written = prepare("images", tmp_path / "out", str(source), recipe=RECIPE, run_tasks=IN_MEMORY)
    assert {rejection.reason.split()[0]: rejection.ids for rejection in written.rejected} == {
        "a": ("train/cat/a.webp",),
        "cut": ("train/dog/cut.png",),
        "in": ("train/dog/deeper/00.png",),
        "not": ("train/fox/LICENSE", "test/cat/-notes.txt"),
    }
    assert written.passed_over.ids == ("train/fox/Thumbs.db", "README.md")
    assert [(remark.remark, remark.images) for remark in written.remarked] == [("one_colour", 70)]


def test_tasks_may_run_twice_and_in_any_order(folder, tmp_path):
    ran = []

    def run_tasks(name, tasks, function):
        ran.append((name, len(tasks)))
        for task in [*reversed(tasks), *tasks]:
            function(task)

    expected = prepare("images", tmp_path / "one", str(folder), recipe=RECIPE)
    assert prepare("images", tmp_path / "many", str(folder), recipe=RECIPE, run_tasks=run_tasks) == expected
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    assert ran == [("parts hashed", 3), ("parts checked", 3), ("shards written", len(expected.shards))]

    # An unchanged source is only hashed, whoever wrote the span.
    assert prepare("images", tmp_path / "one", str(folder), recipe=RECIPE, run_tasks=run_tasks) == expected
    assert ran[3:] == [("parts hashed", 3)] and spans(tmp_path / "one") == [1]


def test_the_next_span_of_an_engine_keeps_the_splits(folder, image, tmp_path):
    prepare("images", tmp_path / "one", str(folder), recipe=RECIPE)
    prepare("images", tmp_path / "many", str(folder), recipe=RECIPE, run_tasks=IN_MEMORY)
    (folder / "train" / "cat" / "new.png").write_bytes(image(1000))
    prepare("images", tmp_path / "one", str(folder), recipe=RECIPE)
    prepare("images", tmp_path / "many", str(folder), recipe=RECIPE, run_tasks=IN_MEMORY)
    assert tree(tmp_path / "many" / "span-2") == tree(tmp_path / "one" / "span-2")


def test_an_unknown_class_is_named(files, in_folder, in_archive, tmp_path):
    source = str(as_webdataset(tmp_path / "source", files, in_folder, in_archive))
    recipe = Recipe(classes=("cat", "dgo"), max_rejected=0.2)
    messages = []
    for run_tasks in (None, IN_MEMORY):
        with pytest.raises(UsageError, match=r"--classes dgo: .* did you mean dog\?") as raised:
            prepare("images", tmp_path / "out", source, recipe=recipe, run_tasks=run_tasks)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_damaged_data_is_refused_with_the_message_of_the_worker(files, in_folder, in_archive, tmp_path):
    source = as_tfds(tmp_path / "source", files, in_folder, in_archive)
    shard = source / "pets-train.tfrecord-00001-of-00003"
    shard.write_bytes(shard.read_bytes()[:-3])
    messages = []
    for run_tasks in (None, IN_MEMORY):
        with pytest.raises(DataRefused, match=r"00001-of-00003: no complete record") as raised:
            prepare("images", tmp_path / "out", str(source), run_tasks=run_tasks)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize("kind", ["archive", "sample"])
def test_a_source_without_parts_is_refused_with_the_fix(kind, files, in_archive, tmp_path):
    source = str(in_archive(tmp_path / "source.tar", files)) if kind == "archive" else None
    with pytest.raises(UsageError, match=r"cannot divide this source .*unpack it\), or set beam.runner to local"):
        prepare("images" if source else kind, tmp_path / "out", source, run_tasks=IN_MEMORY)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize("make", [as_table, as_huggingface])
def test_a_worker_without_the_source_does_not_refuse_the_data(make, files, in_folder, in_archive, tmp_path):
    """The folder is renamed before the images are checked, as if the workers did not have it."""
    source = make(tmp_path / "source", files, in_folder, in_archive)

    def run_tasks(name, tasks, function):
        if name == "parts checked":
            (tmp_path / "source").rename(tmp_path / "elsewhere")
        IN_MEMORY(name, tasks, function)

    with pytest.raises(EngineError, match=rf"cannot use {tmp_path}/source.*: No such file .* at the same paths on all"):
        prepare("images", tmp_path / "out", str(source), recipe=RECIPE, run_tasks=run_tasks)
    assert spans(tmp_path / "out") == []

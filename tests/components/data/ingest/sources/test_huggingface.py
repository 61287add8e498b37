import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.ingest import prepare, rows
from components.data.ingest.manifest import Recipe
from components.data.ingest.source import Record, RejectedRecord, no_progress
from components.data.ingest.sources.huggingface import open_source
from components.errors import DataRefused

NAMES = ("tulip", "rose")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path, images, labels, names=NAMES, columns=("image", "label"), row_group=None, **more):
    """Write a file as `Dataset.to_parquet` of the library `datasets` does."""
    features = {columns[0]: {"_type": "Image"}}
    if names is not None:
        features[columns[1]] = {"names": list(names), "_type": "ClassLabel"}
    values = [image if isinstance(image, dict | None) else {"bytes": image, "path": "1.jpg"} for image in images]
    table = pa.table({columns[0]: pa.array(values, IMAGE), columns[1]: labels, **more})
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=row_group)
    return path


def records(path):
    source = open_source(path, "flowers", no_progress)
    found = list(source.records())
    assert source.total == len(found)
    return found


def test_folder_of_the_hub(tmp_path):
    (tmp_path / "README.md").write_text("---\n---\n")
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [b"0", b"1"], [0, 1])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [b"2"], [1])
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", [b"3"], [0])
    assert open_source(tmp_path, "flowers", no_progress).class_names == NAMES
    assert records(tmp_path) == [
        Record("train", "tulip", b"data/train-00000-of-00002.parquet:0", b"0"),
        Record("train", "rose", b"data/train-00000-of-00002.parquet:1", b"1"),
        Record("train", "rose", b"data/train-00001-of-00002.parquet:0", b"2"),
        Record("val", "tulip", b"data/validation-00000-of-00001.parquet:0", b"3"),
    ]


def test_single_file_has_no_split(tmp_path):
    assert [record.split for record in records(write(tmp_path / "train.parquet", [b"0"], [0]))] == [None]


@pytest.mark.parametrize("columns", [("img", "labels"), ("image", "fine")])
def test_other_columns(tmp_path, columns):
    (record,) = records(write(tmp_path / "x.parquet", [b"0"], [1], columns=columns, text=["a rose"]))
    assert (record.class_name, record.image) == ("rose", b"0")


@pytest.mark.parametrize("labels", [["rose", "tulip"], [5, 6]])
def test_labels_without_names(tmp_path, labels):
    path = write(tmp_path / "x.parquet", [b"0", b"1"], labels, names=None)
    assert [record.class_name for record in records(path)] == [str(label) for label in labels]


def test_rows_that_are_rejected(tmp_path):
    images = [None, {"bytes": None, "path": "1.jpg"}, b"", b"x", b"x", b"x"]
    found = records(write(tmp_path / "x.parquet", images, [0, 0, 1, -1, 2, None]))
    assert [(record.reason[:8], record.class_name) for record in found] == [
        ("no image", "tulip"),
        ("no image", "tulip"),
        ("no image", "rose"),
        *[("no label", None)] * 3,
    ]
    assert all(isinstance(record, RejectedRecord) for record in found)


def test_image_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("components.data.ingest.sources.huggingface.MAX_BYTES", 3)
    large, small = records(write(tmp_path / "x.parquet", [b"1234", b"123"], [0, 0]))
    assert (large.reason[:11], small.image) == ("larger than", b"123")


def test_large_row_groups_are_read_in_parts(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", [b"%03d" % n * 1000 for n in range(50)], [0] * 50, row_group=20)
    monkeypatch.setattr(rows, "_BATCH_BYTES", 10_000)
    assert [record.image[:3] for record in records(path)] == [b"%03d" % n for n in range(50)]
    monkeypatch.setattr(rows, "_MAX_ROW_GROUP", 10_000)
    with pytest.raises(DataRefused, match=r"row group 0 has .* write the file with smaller row groups"):
        records(path)


def test_other_parquet_files_are_not_images(tmp_path):
    pq.write_table(pa.table({"path": ["1.jpg"], "label": [0]}), tmp_path / "x.parquet")
    assert open_source(tmp_path / "x.parquet", "flowers", no_progress) is None
    assert open_source(tmp_path, "flowers", no_progress) is None


@pytest.mark.parametrize(
    "columns, more, problem",
    [
        (("a", "label"), {"b": pa.array([{"bytes": b"x"}])}, "columns of images are 'a', 'b': name the column to use"),
        (("image", "category"), {}, "its columns of labels are none: name the column to use 'label'"),
    ],
)
def test_columns_that_are_ambiguous(tmp_path, columns, more, problem):
    path = write(tmp_path / "x.parquet", [b"0"], [0], names=None, columns=columns, **more)
    with pytest.raises(DataRefused, match=problem):
        records(path)


@pytest.mark.parametrize(
    "metadata",
    ["{", "[]", "[" * 100_000, '{"info": 1}', '{"info": {"features": {"label": {"_type": "ClassLabel"}}}}'],
)
def test_metadata_that_are_damaged(tmp_path, metadata):
    path = write(tmp_path / "x.parquet", [b"0"], [0])
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    with pytest.raises(DataRefused, match="its Hugging Face metadata are damaged"):
        records(path)


def test_spaces_around_class_names(tmp_path):
    source = open_source(write(tmp_path / "x.parquet", [b"0"], [0], names=(" rose", "tulip\n")), "", no_progress)
    assert source.class_names == ("rose", "tulip")


@pytest.mark.parametrize(
    "name, problem",
    [("a", "listed twice"), (" a", "listed twice")]
    + [(name, "not text of 1 to 255 bytes") for name in (1, None, "", " ", "x" * 300, "\ud800")],
)
def test_class_names_that_are_refused(tmp_path, name, problem):
    with pytest.raises(DataRefused, match=f"class name .* of column 'label' is {problem}"):
        records(write(tmp_path / "x.parquet", [b"0"], [0], names=["a", name]))


def test_files_of_different_data_sets(tmp_path):
    write(tmp_path / "train-0.parquet", [b"0"], [0])
    write(tmp_path / "test-0.parquet", [b"0"], [0], names=("rose", "tulip"))
    with pytest.raises(DataRefused, match=r"columns or classes differ from those of test-0\.parquet"):
        records(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_file_that_is_cut(tmp_path, keep):
    path = write(tmp_path / "x.parquet", [b"0" * 1000], [0])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataRefused, match="cut, damaged or not a Parquet file"):
        records(path)


def test_span(image, tmp_path):
    for split, seeds in (("train", range(40)), ("test", range(40, 50))):
        write(tmp_path / "in" / f"{split}.parquet", [image(n) for n in seeds], [n % 2 for n in seeds])
    manifest = prepare("images", tmp_path / "out", str(tmp_path / "in"))
    assert manifest.class_names == NAMES
    assert (manifest.examples("train") + manifest.examples("val"), manifest.examples("test")) == (40, 10)


def test_class_without_an_image(image, tmp_path):
    path = write(tmp_path / "x.parquet", [image(n) for n in range(40)], [n % 2 for n in range(40)], ("a", "b", "c"))
    with pytest.raises(DataRefused, match=r"missing classes \['c'\].*: add images .*, or name the other classes with"):
        prepare("images", tmp_path / "out", str(path))
    manifest = prepare("images", tmp_path / "out", str(path), recipe=Recipe(classes=("a", "b")))
    assert manifest.class_names == ("a", "b")

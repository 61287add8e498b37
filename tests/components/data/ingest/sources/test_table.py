import json

import pandas as pd
import pytest

from components.data.ingest import prepare
from components.data.ingest.source import Record, RejectedRecord, no_progress
from components.data.ingest.sources.table import open_source
from components.errors import DataRefused

FILES = ("a/1.jpg", "a/2.jpg", "b/1.jpg")


@pytest.fixture
def photos(in_folder, tmp_path):
    return in_folder(tmp_path / "photos", {path: path.encode() for path in FILES})


def records(path):
    source = open_source(path, "photos", no_progress)
    found = list(source.records())
    assert source.total == len(found)
    return found


def table(folder, text, name="list.csv", encoding="utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def reasons(path):
    return [(record.id, record.reason.partition(":")[0]) for record in records(path)]


@pytest.mark.parametrize(
    "text, name, encoding",
    [
        ("path,label\na/1.jpg,cat\nb/1.jpg,dog\n", "list.csv", "utf-8"),
        ("Path;Label\na/1.jpg;cat\nb/1.jpg;dog\n", "list.csv", "utf-8-sig"),
        ("label\tfile_name\r\ncat\ta/1.jpg\r\ndog\tb/1.jpg\r\n", "LIST.TSV", "utf-8"),
        (',path,label\n0,"./a/1.jpg",cat\n\n1,b//1.jpg,"dog"', "list.csv", "utf-8"),
        ('{"path": "a/1.jpg", "label": "cat"}\n{"label": "dog", "path": "b/1.jpg"}\n', "list.jsonl", "utf-8"),
    ],
)
def test_text(photos, text, name, encoding):
    assert records(table(photos, text, name, encoding)) == [
        Record(None, "cat", b"a/1.jpg", b"a/1.jpg"),
        Record(None, "dog", b"b/1.jpg", b"b/1.jpg"),
    ]


@pytest.mark.parametrize("labels", [[7, 8], [7.0, 8.0], ["7", "8"], pd.Categorical(["7", "8"])])
def test_parquet(photos, labels):
    pd.DataFrame({"path": FILES[1:], "label": labels, "split": ["train", "test"]}).to_parquet(photos / "list.parquet")
    assert records(photos / "list.parquet") == [
        Record("train", "7", b"a/2.jpg", b"a/2.jpg"),
        Record("test", "8", b"b/1.jpg", b"b/1.jpg"),
    ]


def test_names_of_splits(photos):
    path = table(photos, "path,label,split\na/1.jpg,cat,Training\na/2.jpg,cat,validation\nb/1.jpg,cat, test\n")
    assert [record.split for record in records(path)] == ["train", "val", "test"]


def test_splits_in_the_paths(in_folder, tmp_path):
    folder = in_folder(tmp_path / "photos", {"train/1.jpg": b"1", "validation/2.jpg": b"2"})
    path = table(folder, "path,label\ntrain/1.jpg,cat\nvalidation/2.jpg,dog\n")
    assert [record.split for record in records(path)] == ["train", "val"]


def test_absolute_path_inside_the_folder(photos):
    (record,) = records(table(photos, f"path,label\n{photos / 'a' / '1.jpg'},cat\n"))
    assert record.id == b"a/1.jpg"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("places", [[""], ["train/", "validation/"]])
def test_folder_with_metadata(in_folder, tmp_path, ending, places):
    files = ["train/1.jpg", "validation/2.jpg"]
    folder = in_folder(tmp_path / "photos", {path: path.encode() for path in files})
    for place in places:
        rows = pd.DataFrame({"file_name": [path.removeprefix(place) for path in files if path.startswith(place)]})
        rows["label"] = "cat"
        path = folder / place / f"metadata.{ending}"
        if ending == "csv":
            rows.to_csv(path, index=False)
        elif ending == "jsonl":
            rows.to_json(path, orient="records", lines=True)
        else:
            rows.to_parquet(path)
    assert records(folder) == [
        Record("train", "cat", b"train/1.jpg", b"train/1.jpg"),
        Record("val", "cat", b"validation/2.jpg", b"validation/2.jpg"),
    ]


@pytest.mark.parametrize("text", ["file_name,text\na/1.jpg,a cat\n", "label,text\ncat,a pet\n", ""])
def test_folder_whose_metadata_are_not_a_table_of_images(photos, text):
    table(photos, text, "metadata.csv")
    assert open_source(photos, "photos", no_progress) is None


@pytest.mark.parametrize(
    "places", [("metadata.csv", "metadata.jsonl"), ("metadata.csv", "train/metadata.csv")], ids=["kinds", "places"]
)
def test_folder_with_two_tables_of_the_same_images(photos, places):
    (photos / "train").mkdir()
    for place in places:
        table(photos, "file_name,label\na/1.jpg,cat\n", place)
    with pytest.raises(DataRefused, match="keep one of them"):
        open_source(photos, "photos", no_progress)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "no column 'path': it has no columns"),
        ("image,class\na/1.jpg,cat\n", "no column 'path': it has 'image', 'class'. Name the columns"),
        ("path,class\na/1.jpg,cat\n", "no column 'label'"),
        ("path,label\n", "has no rows"),
        ("path,label,path\na,b,c\n", "column 'path' more than once"),
        ("path,label\na/1.jpg\n", "line 2: 1 cells, but the header has 2"),
        ('path,label\n"a/1.jpg,cat\n', "line 2: not CSV"),
        ("path,label\n" + "a" * 2**21, "line 2: more than 1,048,576 bytes"),
        ("path,label,split\na/1.jpg,cat,holdout\n", "line 2: unknown split 'holdout': use train, val or test"),
        ("path,label,split\na/1.jpg,cat,train\na/2.jpg,cat,\n", "line 3 has no split, but line 2 has one"),
        ("path,label,split\na/1.jpg,cat,\na/2.jpg,cat,val\n", "line 2 has no split, but line 3 has one"),
        ("path,label\n/etc/hosts,cat\n", "line 2: path '/etc/hosts' leads out of the folder of the table"),
        ("path,label\n../photos/a/1.jpg,cat\n", "line 2: path '../photos/a/1.jpg' leads out"),
        ("path,label\na/../../x,cat\n", "leads out"),
        ("path,label\na\\1.jpg,cat\n", "has backslashes"),
    ],
)
def test_table_that_is_refused(photos, text, problem):
    with pytest.raises(DataRefused) as refused:
        records(table(photos, text))
    assert problem in str(refused.value)


@pytest.mark.parametrize("line", ["[1]", "{", '"path"', "[" * 100_000])
def test_json_lines_that_are_refused(photos, line):
    with pytest.raises(DataRefused, match=r"line 2: not (JSON|a JSON object)"):
        records(table(photos, f'{{"path": "a/1.jpg", "label": "cat"}}\n{line}\n', "list.jsonl"))


@pytest.mark.parametrize(
    "encoding, problem", [("utf-16", "encoded in UTF-16"), ("windows-1252", "line 2: byte 0xfc is not UTF-8")]
)
def test_encoding_that_is_refused(photos, encoding, problem):
    with pytest.raises(DataRefused, match=problem):
        records(table(photos, "path,label\na/1.jpg,Tür\n", encoding=encoding))


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: data[:40], lambda data: b"x" * 100])
def test_parquet_that_is_damaged(photos, damage):
    pd.DataFrame({"path": FILES, "label": "cat"}).to_parquet(photos / "list.parquet")
    (photos / "list.parquet").write_bytes(damage((photos / "list.parquet").read_bytes()))
    with pytest.raises(DataRefused, match="cut, damaged or not a Parquet file"):
        records(photos / "list.parquet")


def test_rows_that_are_rejected(photos):
    text = "path,label\nc/9.jpg,cat\na,cat\na/1.jpg/x,cat\n" + "x" * 300 + ",cat\n,cat\na/1.jpg,\na/2.jpg," + "x" * 256
    missing = "no such file"
    assert reasons(table(photos, text)) == [
        (b"c/9.jpg", missing),
        (b"a", missing),
        (b"a/1.jpg/x", missing),
        (b"x" * 300, missing),
        (b"list.csv: line 6", "no path"),
        (b"a/1.jpg", "no label of 1 to 255 bytes"),
        (b"a/2.jpg", "no label of 1 to 255 bytes"),
    ]


@pytest.mark.parametrize("path", [None, 3, "a\0b", "\ud800", [], "."])
def test_path_that_is_not_a_path(photos, path):
    row = json.dumps({"path": path, "label": "cat"})
    assert reasons(table(photos, row, "list.jsonl")) == [(b"list.jsonl: line 1", "no path")]


@pytest.mark.parametrize("label", [None, "", " ", [1], {"a": 1}, 0.5, "\ud800"])
def test_label_that_is_not_a_label(photos, label):
    row = json.dumps({"path": "a/1.jpg", "label": label})
    assert reasons(table(photos, row, "list.jsonl")) == [(b"a/1.jpg", "no label of 1 to 255 bytes")]


def test_odd_names(in_folder, tmp_path):
    names = [" 1.jpg", "2,;.jpg", 'quo"te.jpg', "line\nbreak.jpg", "Ü\u202e.jpg", "-rf.jpg"]
    folder = in_folder(tmp_path / "photos", {name: name.encode() for name in names})
    rows = "".join(f'"{name.replace(chr(34), chr(34) * 2)}",cat\n' for name in names)
    assert [record.image.decode() for record in records(table(folder, "path,label\n" + rows))] == names


@pytest.mark.parametrize("inside", [True, False])
def test_link_among_the_folders_of_a_path(photos, tmp_path, inside):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.jpg").write_bytes(b"secret")
    (photos / "link").symlink_to(photos / "a" if inside else tmp_path / "other")
    path = table(photos, "path,label\nlink/1.jpg,cat\n")
    if inside:
        assert records(path) == [Record(None, "cat", b"link/1.jpg", b"a/1.jpg")]
    else:
        with pytest.raises(DataRefused, match="leads out of the folder"):
            records(path)


def test_folder_of_a_split_that_is_a_link(photos, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.jpg").write_bytes(b"secret")
    table(tmp_path / "other", "file_name,label\n1.jpg,cat\n", "metadata.csv")
    (photos / "train").symlink_to(tmp_path / "other")
    with pytest.raises(DataRefused, match="train: a link or special file"):
        records(photos)


def test_link_from_the_folder_of_a_split(photos, tmp_path):
    (tmp_path / "linked").symlink_to(photos)
    (photos / "train").mkdir()
    (photos / "train" / "up").symlink_to(photos / "a")
    table(photos, "file_name,label\nup/1.jpg,cat\n", "train/metadata.csv")
    with pytest.raises(DataRefused, match="leads out of the folder of the table"):
        records(tmp_path / "linked")
    (photos / "train" / "1.jpg").write_bytes(b"1")
    table(photos, "file_name,label\n1.jpg,cat\n", "train/metadata.csv")
    assert records(tmp_path / "linked") == [Record("train", "cat", b"train/1.jpg", b"1")]


@pytest.mark.parametrize("name", ["a/link.jpg", "list.csv"])
def test_link_instead_of_a_file(photos, tmp_path, name):
    path = table(photos, "path,label\na/link.jpg,cat\n") if name != "list.csv" else photos / name
    (tmp_path / "target").write_text("path,label\na/1.jpg,cat\n")
    (photos / name).symlink_to(tmp_path / "target")
    with pytest.raises(DataRefused, match="a link or special file"):
        records(path)


def test_other_files_are_not_tables(photos):
    assert open_source(photos, "photos", no_progress) is None
    assert open_source(photos / "a" / "1.jpg", "photos", no_progress) is None


@pytest.mark.parametrize("change", ["list.csv", "a/1.jpg", "b/1.jpg"])
def test_digest_depends_on_the_table_and_its_files(photos, change):
    path = table(photos, "path,label\na/1.jpg,cat\nb/1.jpg,dog\n")
    digests = {open_source(path, "photos", no_progress).sha256}
    (photos / "a" / "2.jpg").write_bytes(b"not in the table")
    digests.add(open_source(path, "photos", no_progress).sha256)
    assert len(digests) == 1
    with (photos / change).open("a") as file:
        file.write("a/2.jpg,cat\n")
    digests.add(open_source(path, "photos", no_progress).sha256)
    assert len(digests) == 2


def test_span_of_a_table(files, in_folder, tmp_path):
    folder = in_folder(tmp_path / "photos", files)
    lines = [f"{path},{path.split('/')[1]},{path.split('/')[0]}" for path in files]
    manifest = prepare("images", tmp_path / "out", str(table(folder, "\n".join(["path,label,split", *lines]))))
    assert manifest.class_names == ("cat", "dog", "fox")
    assert (manifest.examples("train") + manifest.examples("val"), manifest.examples("test")) == (60, 9)
    with pytest.raises(DataRefused, match=r"holds 'test/cat/00.png' more than once"):
        text = "\n".join(["path,label,split", *lines, lines[-9]])
        prepare("images", tmp_path / "twice", str(table(folder, text)))


def test_rejected_record_knows_its_class(photos):
    (rejected,) = records(table(photos, "path,label\nmissing.jpg,cat\n"))
    assert isinstance(rejected, RejectedRecord) and rejected.class_name == "cat"

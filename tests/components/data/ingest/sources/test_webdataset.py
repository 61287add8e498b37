import json

import pytest

from components.data.ingest import prepare
from components.data.ingest.source import Record, no_progress
from components.data.ingest.sources.webdataset import open_source
from components.errors import DataRefused


def samples(*labels, field="cls", start=0, image="jpg"):
    """Return the files of samples, in the order in which WebDataset's TarWriter writes them."""
    files = {}
    for number, label in enumerate(labels, start=start):
        files |= {f"{number:04}.{field}": label.encode(), f"{number:04}.{image}": b"%d" % number}
    return files


def records(path):
    return list(open_source(path, "flowers", no_progress).records())


def labels(path):
    return [getattr(record, "reason", record.class_name).partition(":")[0] for record in records(path)]


@pytest.mark.parametrize(
    "names",
    [
        ("flowers-train-000000.tar", "flowers-val-000000.tar", "flowers-test-000000.tar"),
        ("train/0.tar", "validation/0.tar", "test/0.tar"),
        ("train-0.tar.gz", "dev-0.tgz", "testing-0.tar"),
        ("0.tar", "1.tar", "2.tar"),
    ],
)
def test_folder_of_archives(in_archive, tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        in_archive(tmp_path / name, samples("1", "0"))
    (tmp_path / "classnames.txt").write_text("tulip\nrose\n")
    splits = (None, None, None) if names[0] == "0.tar" else ("train", "val", "test")
    expected = [
        Record(split, name, f"{archive}/{number:04}.jpg".encode(), b"%d" % number)
        for archive, split in sorted(zip(names, splits, strict=True))
        for number, name in enumerate(("rose", "tulip"))
    ]
    assert records(tmp_path) == expected
    assert open_source(tmp_path, "flowers", no_progress).class_names == ("tulip", "rose")


@pytest.mark.parametrize(
    "field, label, name",
    [
        ("cls", "3\n", "3"),
        ("cls", "rose", "rose"),
        ("txt", "rose\n", "rose"),
        ("json", '{"label": "rose", "size": 3}', "rose"),
        ("json", '{"cls": 3}', "3"),
        ("json", '"rose"', "rose"),
        ("JSON", "3", "3"),
    ],
)
def test_label(in_archive, tmp_path, field, label, name):
    assert labels(in_archive(tmp_path / "x.tar", samples(label, field=field, image="PNG"))) == [name]


def test_other_files_of_a_sample(in_archive, tmp_path):
    files = {"a/1.jpg": b"1", "a/1.seg.png": b"x", "a/1.cls": b"0", "a/1.txt": b"a caption", "README": b"", "b/": b""}
    assert records(in_archive(tmp_path / "x.tar", files)) == [Record(None, "0", b"x.tar/a/1.jpg", b"1")]


def test_samples_that_are_rejected(in_archive, tmp_path):
    files = {
        **samples("0", "9", "x" * 256, "", "1.5", "\N{SUPERSCRIPT TWO}"),
        "a.cls": b"1",
        "b.jpg": b"",
        "b.png": b"",
        "b.cls": b"1",
        "c.json": b"{",
        "c.jpg": b"",
        "d.json": b"[" * 100_000,
        "d.jpg": b"",
        "e.txt": b"\xff",
        "e.jpg": b"",
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "classes.txt").write_text("tulip\nrose")
    in_archive(tmp_path / "in" / "0.tar", files)
    none = "no label in its sample"
    assert labels(tmp_path / "in") == [
        "tulip",
        "a label that has no name in the file of class names",
        none,
        none,
        "1.5",
        "\N{SUPERSCRIPT TWO}",
        "no image in its sample",
        "several images in its sample",
        *[none] * 3,
    ]


def test_files_of_a_sample_that_do_not_follow_each_other(in_archive, tmp_path):
    path = in_archive(tmp_path / "x.tar", {"0.cls": b"0", "1.cls": b"1", "0.jpg": b"", "1.jpg": b""})
    assert labels(path) == ["no image in its sample"] * 2 + ["no label in its sample"] * 2


@pytest.mark.parametrize(
    "files",
    [
        {"cat/1.jpg": b"1", "cat/1.txt": b"a caption", "dog/1.jpg": b""},
        {"cat/1.jpg": b"1", "cat/1.json": b"{}"},
        {"1.jpg": b"1", "2.jpg": b"2", "labels.json": b"{}"},
        {"README.txt": b""},
    ],
)
def test_other_archives_are_not_webdatasets(in_archive, tmp_path, files):
    assert open_source(in_archive(tmp_path / "x.tar", files), "flowers", no_progress) is None


@pytest.mark.parametrize("data", [b"", b"text" * 200, b"\x1f\x8b" * 500])
def test_other_files_are_not_webdatasets(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    assert open_source(tmp_path / "x.tar", "flowers", no_progress) is None


@pytest.mark.parametrize(
    "names, problem",
    [
        (b"a\nb\n\na", "class 'a' is in line 1 and in line 4"),
        (b"a\n\xff", "not UTF-8 .byte 2"),
        (b"a\n" + b"b" * 256, "line 2: 'b+ has 256 bytes, the bound is 255"),
    ],
)
def test_class_names_that_are_refused(in_archive, tmp_path, names, problem):
    in_archive(tmp_path / "0.tar", samples("1"))
    (tmp_path / "classes.txt").write_bytes(names)
    with pytest.raises(DataRefused, match=problem):
        records(tmp_path)


def test_archive_that_is_cut(in_archive, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("0.tar", "1.tar"):
        in_archive(tmp_path / "in" / name, samples("1", "2"))
    (tmp_path / "in" / "1.tar").write_bytes((tmp_path / "in" / "1.tar").read_bytes()[:1600])
    with pytest.raises(DataRefused, match=r"1.tar: cut, damaged"):
        records(tmp_path / "in")


def test_member_that_leads_out_of_the_archive(in_archive, tmp_path):
    (tmp_path / "in").mkdir()
    in_archive(tmp_path / "in" / "0.tar", {**samples("1"), "../9.jpg": b""})
    with pytest.raises(DataRefused, match=r"leads out of the archive"):
        records(tmp_path / "in")


def test_digest_depends_on_archives_and_class_names(in_archive, tmp_path):
    in_archive(tmp_path / "0.tar", samples("1"))
    digests = [open_source(tmp_path, "flowers", no_progress).sha256]
    (tmp_path / "notes.txt").write_text("not read")
    assert open_source(tmp_path, "flowers", no_progress).sha256 == digests[0]
    (tmp_path / "classes.txt").write_text("a\nb")
    digests.append(open_source(tmp_path, "flowers", no_progress).sha256)
    in_archive(tmp_path / "0.tar", samples("0"))
    digests.append(open_source(tmp_path, "flowers", no_progress).sha256)
    assert len(set(digests)) == 3


def test_label_that_is_no_class(image, in_archive, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "classes.txt").write_text("tulip\nrose")
    files = {}
    for seed, label in enumerate(("0", "1.0", "lily")):
        files |= {f"{seed}.png": image(seed), f"{seed}.cls": label.encode()}
    in_archive(tmp_path / "in" / "0.tar", files)
    assert labels(tmp_path / "in") == ["tulip", "rose", "lily"]
    with pytest.raises(DataRefused, match=r"unexpected classes \['lily'\]: correct the labels, or list the classes"):
        prepare("images", tmp_path / "out", str(tmp_path / "in"))


def test_span(image, in_archive, tmp_path):
    (tmp_path / "in").mkdir()
    for split, seeds in (("train", range(40)), ("test", range(40, 50))):
        files = {}
        for seed in seeds:
            files |= {f"{seed}.png": image(seed), f"{seed}.json": json.dumps({"label": seed % 2}).encode()}
        in_archive(tmp_path / "in" / f"{split}-0000.tar", files)
    manifest = prepare("images", tmp_path / "out", str(tmp_path / "in"))
    assert manifest.class_names == ("0", "1")
    assert (manifest.examples("train") + manifest.examples("val"), manifest.examples("test")) == (40, 10)

import json
import struct

import pytest

from components.data.ingest import prepare, tfrecord
from components.data.ingest.source import Record, RejectedRecord, no_progress
from components.data.ingest.sources.tfds import open_source
from components.errors import DataRefused

NAMES = ("tulip", "rose")
CORE = "tensorflow_datasets.core.features"
IMAGE = {"pythonClassName": f"{CORE}.image_feature.Image", "image": {"dtype": "uint8", "shape": {}}}
LABEL = {"pythonClassName": f"{CORE}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "2"}}
TEXT = {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}}


def numbered(classes):
    return {**LABEL, "classLabel": {"numClasses": classes}}


def field(number, data):
    """Return a field of bytes in the encoding of protocol buffers."""
    size, length = len(data), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def example(image, label, image_name="image", label_name="label"):
    """Return a serialized tf.Example as TFDS writes it, with features of three types in the order of their names."""
    label = b"\x08" + (label % 2**64).to_bytes(1, "little") if label >= 0 else b"\x08" + b"\xff" * 9 + b"\x01"
    features = {
        image_name: field(1, field(1, image)),
        label_name: field(3, label),
        "score": field(2, field(1, struct.pack("<f", 0.5))),
        "text": field(1, field(1, b"a flower")),
    }
    return field(1, b"".join(field(1, field(1, key.encode()) + field(2, value)) for key, value in features.items()))


def version(folder, features=None, names=NAMES, shards=None, info=None):
    folder.mkdir(parents=True, exist_ok=True)
    features = {"image": IMAGE, "label": LABEL, "text": TEXT} if features is None else features
    described = {"pythonClassName": f"{CORE}.features_dict.FeaturesDict", "featuresDict": {"features": features}}
    (folder / "features.json").write_text(json.dumps(described))
    if names is not None:
        (folder / "label.labels.txt").write_text("\n".join(names) + "\n")
    if shards is None:
        shards = {f"{split}-{part}": [(b"%d" % part, part)] for split in ("train", "test") for part in (0, 1)}
    splits = {}
    for shard, examples in shards.items():
        split, _, part = shard.rpartition("-")
        splits.setdefault(split, []).append(str(len(examples)))
        name = f"flowers-{split}.tfrecord-{int(part):05}-of-{sum(key.startswith(f'{split}-') for key in shards):05}"
        (folder / name).write_bytes(b"".join(tfrecord.frame(example(*item)) for item in examples))
    described = {
        "name": "flowers",
        "fileFormat": "tfrecord",
        "splits": [{"name": name, "shardLengths": lengths} for name, lengths in splits.items()],
        **(info or {}),
    }
    (folder / "dataset_info.json").write_text(json.dumps(described))
    return folder


def records(path):
    return list(open_source(path, "flowers", no_progress).records())


def test_version(tmp_path):
    shards = {"train-0": [(b"a", 0), (b"b", 1)], "train-1": [(b"c", 1)], "validation-0": [(b"d", 0)]}
    source = open_source(version(tmp_path / "x", shards=shards), "flowers", no_progress)
    assert (source.class_names, source.total) == (NAMES, 4)
    assert list(source.records()) == [
        Record("train", "tulip", b"flowers-train.tfrecord-00000-of-00002:0", b"a"),
        Record("train", "rose", b"flowers-train.tfrecord-00000-of-00002:1", b"b"),
        Record("train", "rose", b"flowers-train.tfrecord-00001-of-00002:0", b"c"),
        Record("val", "tulip", b"flowers-validation.tfrecord-00000-of-00001:0", b"d"),
    ]


@pytest.mark.parametrize("below", ["1.0.0", "flowers/1.0.0"])
def test_folder_above_the_only_version(tmp_path, below):
    version(tmp_path / below)
    assert len(records(tmp_path)) == 4
    version(tmp_path / below.replace("1.0.0", "2.0.0"))
    with pytest.raises(DataRefused, match=f"holds the data sets {below}, .*: name the folder of one of them"):
        records(tmp_path)


def test_features_of_older_versions_of_the_library(tmp_path):
    folder = version(tmp_path / "x", names=None)
    image = {"type": f"{CORE}.image_feature.Image", "content": {"shape": [None, None, 3], "dtype": "uint8"}}
    label = {"type": f"{CORE}.class_label_feature.ClassLabel", "content": {"num_classes": 2}}
    for content in ({"image": image, "label": label}, json.dumps({"features": {"image": IMAGE, "label": LABEL}})):
        described = {"type": f"{CORE}.features_dict.FeaturesDict", "content": content}
        (folder / "features.json").write_text(json.dumps(described))
        assert [record.class_name for record in records(folder)] == ["0", "1", "0", "1"]


def test_other_names_of_features(tmp_path):
    features = {"photo": IMAGE, "species": LABEL}
    shards = {"train-0": [(b"a", 1, "photo", "species")]}
    folder = version(tmp_path / "x", features, None, shards)
    (folder / "species.labels.txt").write_text("tulip\nrose\n")
    assert [record.class_name for record in records(folder)] == ["rose"]


def test_labels_that_are_rejected(tmp_path):
    found = records(version(tmp_path / "x", shards={"test-0": [(b"a", -1), (b"b", 2), (b"c", 1)]}))
    assert [isinstance(record, RejectedRecord) for record in found] == [True, True, False]


@pytest.mark.parametrize(
    "features, problem",
    [
        ({"image": TEXT, "label": LABEL}, "features of type Image are none"),
        ({"image": IMAGE, "label": TEXT}, "features of type ClassLabel are none"),
        ({"left": IMAGE, "right": IMAGE, "label": LABEL}, "features of type Image are 'left', 'right'"),
        ({"image": IMAGE, "label": {**LABEL, "classLabel": {}}}, "label.labels.txt: missing"),
        ({"image": IMAGE, "label": numbered(float("inf"))}, "label.labels.txt: missing"),
        ({"image": IMAGE, "label": numbered(-1)}, "'label' has -1 classes, but 2 to 100,000 are allowed: correct"),
        ({"image": IMAGE, "label": numbered("2000000")}, "has 2,000,000 classes"),
        ({"image": IMAGE, "../label": LABEL}, r"'\.\./label' has a slash or backslash"),
        ({"image": IMAGE, "x\\label": LABEL}, "has a slash or backslash"),
        ({"image": IMAGE, "x" * 300: LABEL}, "or more than 200 bytes"),
    ],
)
def test_features_that_are_refused(tmp_path, features, problem):
    with pytest.raises(DataRefused, match=problem):
        records(version(tmp_path / "x", features, None))


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_description_that_is_damaged(tmp_path, file, text):
    (version(tmp_path / "x") / file).write_text(text)
    with pytest.raises(DataRefused, match=f"{file}: not (JSON|a JSON object)"):
        records(tmp_path / "x")


@pytest.mark.parametrize("info", [{"splits": 3}, {"splits": [{"name": "train"}]}, {"splits": [{}]}])
def test_numbers_of_examples_that_are_missing(tmp_path, info):
    source = open_source(version(tmp_path / "x", info=info), "flowers", no_progress)
    assert source.total is None and len(list(source.records())) == 4


def test_other_file_format(tmp_path):
    with pytest.raises(DataRefused, match=r"the file format is 'array_record': build .* `--file_format=tfrecord`"):
        records(version(tmp_path / "x", info={"fileFormat": "array_record"}))


@pytest.mark.parametrize(
    "remove, problem",
    [
        ("*-train.*-00000-*", "file 0 of the 2 files of split 'train' is missing"),
        ("*-train.*-00001-*", "file 1 of the 2 files of split 'train' is missing"),
        ("*-test.*", "the files of split 'test' are missing"),
        ("*.tfrecord-*", "the files of split 'train' are missing"),
    ],
)
def test_files_that_are_missing(tmp_path, remove, problem):
    folder = version(tmp_path / "x")
    for path in folder.glob(remove):
        path.unlink()
    with pytest.raises(DataRefused, match=problem):
        records(folder)


def test_unknown_split(tmp_path):
    with pytest.raises(DataRefused, match="unknown split 'extra': use train, validation and test, and move"):
        records(version(tmp_path / "x", shards={"train-0": [(b"a", 0)], "extra-0": [(b"b", 1)]}))


@pytest.mark.parametrize(
    "damage, problem",
    [
        (lambda data: data[:-1], "checksum does not match|no complete record"),
        (lambda data: data[:20] + b"x" + data[21:], "checksum does not match"),
        (lambda _: tfrecord.frame(b"text"), "example 0: not a tf.Example"),
        (lambda _: tfrecord.frame(example(b"a", 0, "picture")), "example 0: feature 'image': expected one bytes value"),
    ],
)
def test_file_that_is_damaged(tmp_path, damage, problem):
    path = version(tmp_path / "x") / "flowers-train.tfrecord-00000-of-00002"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataRefused, match=problem):
        records(tmp_path / "x")


def test_other_folders_are_not_data_sets(tmp_path):
    assert open_source(tmp_path, "flowers", no_progress) is None
    (tmp_path / "dataset_info.json").write_text("{}")  # Hugging Face's library writes one, too
    assert open_source(tmp_path, "flowers", no_progress) is None
    assert open_source(tmp_path / "dataset_info.json", "flowers", no_progress) is None


def test_span(image, tmp_path):
    shards = {"train-0": [(image(n), n % 2) for n in range(40)], "test-0": [(image(n), n % 2) for n in range(40, 50)]}
    manifest = prepare("images", tmp_path / "out", str(version(tmp_path / "in", shards=shards)))
    assert manifest.class_names == NAMES
    assert (manifest.examples("train") + manifest.examples("val"), manifest.examples("test")) == (40, 10)

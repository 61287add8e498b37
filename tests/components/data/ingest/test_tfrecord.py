import pytest

from components.data.ingest import tfrecord
from components.errors import DataRefused

EXAMPLES = [(b"\x89PNG...", 0, b"a"), (b"", 9, "train/caf\xe9/1.jpg".encode()), (b"x" * 100_000, 2**40, b"c")]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "part.tfrecord"
    path.write_bytes(b"".join(tfrecord.frame(tfrecord.example(*example)) for example in EXAMPLES))
    return path


def test_tensorflow_reads_what_is_written(shard):
    tf = pytest.importorskip("tensorflow")
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "id": tf.io.FixedLenFeature([], tf.string),
    }
    records = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    parsed = [tf.io.parse_single_example(record, features) for record in records]
    assert [(p["image"].numpy(), int(p["label"]), p["id"].numpy()) for p in parsed] == EXAMPLES
    assert tf.train.Example.FromString(records[0]).features.feature["label"].int64_list.value == [0]


def feature(*values):
    """Return a tf.train.Feature whose kind depends on the type of the values."""
    tf = pytest.importorskip("tensorflow")
    if values and isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def written_by_tensorflow(**features):
    tf = pytest.importorskip("tensorflow")
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


WHOLE = {"id": (b"cat/1.png",), "image": (b"png",), "label": (7,)}


def test_reads_what_tensorflow_writes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    with tf.io.TFRecordWriter(str(tmp_path / "shard")) as writer:
        writer.write(written_by_tensorflow(**{name: feature(*values) for name, values in WHOLE.items()}))
    [record] = tfrecord.read(tmp_path / "shard")
    assert tfrecord.parse(record) == (b"cat/1.png", b"png", 7)


def test_reads_what_it_writes(shard):
    found = [tfrecord.parse(record) for record in tfrecord.read(shard)]
    assert found == [(id, image, label) for image, label, id in EXAMPLES]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label": (1, 2)}, "'cat/1.png': feature 'label': expected one int64 value, found 2 of them"),
        ({"label": (b"cat",)}, "'cat/1.png': feature 'label': expected one int64 value, found another type, or no"),
        ({"label": ()}, "'cat/1.png': feature 'label': expected one int64 value, found another type, or no value"),
        ({"image": None}, "'cat/1.png': feature 'image': expected one bytes value, found none"),
        ({"id": None}, "feature 'id': expected one bytes value, found none"),
    ],
)
def test_an_incomplete_example_is_reported_with_its_feature(change, message):
    features = {name: feature(*values) for name, values in (WHOLE | change).items() if values is not None}
    with pytest.raises(ValueError) as raised:
        tfrecord.parse(written_by_tensorflow(**features))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("cut", [1, 4, 50, 99_999])
def test_cut_file_is_refused(shard, cut):
    shard.write_bytes(shard.read_bytes()[:-cut])
    with pytest.raises(DataRefused, match=r"part\.tfrecord: .*bytes before its end"):
        list(tfrecord.read(shard))


@pytest.mark.parametrize("at", [0, 9, 14, -1, -50_000])
def test_altered_file_is_refused(shard, at):
    data = bytearray(shard.read_bytes())
    data[at] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataRefused, match=r"part\.tfrecord"):
        list(tfrecord.read(shard))


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"\x0a\x00"])
def test_a_record_that_is_not_an_example_is_an_error(data):
    with pytest.raises(ValueError, match=r"feature|tf\.Example"):
        tfrecord.parse(data)


def test_examples_of_a_split_are_in_the_order_of_its_shards(tmp_path):
    for number, ids in (2, [b"c"]), (1, [b"a", b"b"]):
        records = [tfrecord.frame(tfrecord.example(b"image", 0, id)) for id in ids]
        (tmp_path / f"part-{number:05}-of-00003.tfrecord").write_bytes(b"".join(records))
    assert [example.id for example in tfrecord.read_split(tmp_path)] == [b"a", b"b", b"c"]
    (tmp_path / "part-00003-of-00003.tfrecord").write_bytes(tfrecord.frame(b"no example"))
    with pytest.raises(DataRefused, match=r"part-00003-of-00003\.tfrecord: "):
        list(tfrecord.read_split(tmp_path))


def test_one_example_is_read_by_its_offset(tmp_path):
    records = [tfrecord.example(b"image %d" % n * n, n, b"%d" % n) for n in range(4)]
    path = tmp_path / "part-00000-of-00001.tfrecord"
    path.write_bytes(b"".join(map(tfrecord.frame, records)))
    places = list(tfrecord.read_places(path))
    assert [tfrecord.read_example(path, offset) for offset, _ in places] == [example for _, example in places]
    with pytest.raises(DataRefused):
        tfrecord.read_example(path, places[1][0] + 1)

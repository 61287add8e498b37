import pytest

from components.ingest import DataRefused, tfrecord

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


def test_reads_what_tensorflow_writes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    value = tf.train.Feature(int64_list=tf.train.Int64List(value=[7]))
    data = tf.train.Example(features=tf.train.Features(feature={"label": value})).SerializeToString()
    with tf.io.TFRecordWriter(str(tmp_path / "shard")) as writer:
        writer.write(data)
    assert [tfrecord.label_of(record) for record in tfrecord.read(tmp_path / "shard")] == [7]


def test_reads_its_own(shard):
    assert [tfrecord.label_of(record) for record in tfrecord.read(shard)] == [label for _, label, _ in EXAMPLES]


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
def test_no_label(data):
    with pytest.raises(ValueError, match=r"label|tf\.Example"):
        tfrecord.label_of(data)

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from components.data.ingest import tfrecord
from trainer.input import PADDING_LABEL, Share, Split, dataset, evaluation_batches, load, training_batches

ALONE = Share(first=0, replicas=1, parts=1)


@pytest.fixture
def split():
    labels = np.arange(10)
    return Split(np.full((10, 2, 2, 3), 1, "uint8") * labels[:, None, None, None].astype("uint8"), labels)


def taken(batches, count):
    return list(itertools.islice(batches, count))


def labels_of(batches):
    return np.concatenate([batch[1] for batch in batches])


def decode(records):
    """Read examples whose images are pixels already."""
    features = {"image": tf.string, "label": tf.int64, "id": tf.string}
    batch = tf.io.parse_example(records, {name: tf.io.FixedLenFeature([], dtype) for name, dtype in features.items()})
    return tf.io.decode_raw(batch["image"], tf.uint8), batch["label"], batch["id"]


@pytest.fixture
def files(tmp_path, split):
    """Write the split as raw examples in two files."""
    for name, rows in {"a": range(6), "b": range(6, 10)}.items():
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for row in rows:
                writer.write(tfrecord.example(split.images[row].tobytes(), row, b"%02d" % row))
    return [str(tmp_path / "*")]


def test_a_split_is_read_in_the_order_of_its_files(files, split):
    loaded = load(files, decode, 2)
    np.testing.assert_array_equal(loaded.images, split.images)
    np.testing.assert_array_equal(loaded.labels, split.labels)
    assert loaded.digest() == split.digest()


def test_examples_may_be_left_out(files, split):
    loaded = load(files, decode, 2, leave_out=[b"00", b"07", b"no such"])
    assert loaded.labels.tolist() == [1, 2, 3, 4, 5, 6, 8, 9]
    np.testing.assert_array_equal(loaded.images, split.images[loaded.labels])


def test_no_examples_is_an_error_that_names_the_files(tmp_path):
    with pytest.raises(ValueError, match="nothing-here"):
        load([str(tmp_path / "nothing-here*")], decode, 2)


def test_a_split_without_examples_or_with_a_damaged_file_is_an_error(files, tmp_path):
    with pytest.raises(ValueError, match=r"all 10 examples of .* are left out"):
        load(files, decode, 2, leave_out=[b"%02d" % row for row in range(10)])
    whole = (tmp_path / "b").read_bytes()
    for damaged in (whole[:-3], whole + b"more"):
        (tmp_path / "b").write_bytes(damaged)
        with pytest.raises(ValueError, match="b ends within a record"):
            load(files, decode, 2)


def test_a_full_disk_is_reported_before_images_are_decoded(files, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"10 images take .* GiB left: set TMPDIR"):
        load(files, decode, 2)


def test_the_digest_covers_pixels_and_labels(split):
    images, labels = split.images.copy(), split.labels.copy()
    images[3, 1, 1, 2] ^= 1
    labels[3] = 0
    digests = {split.digest(), Split(images, split.labels).digest(), Split(split.images, labels).digest()}
    assert len(digests) == 3


def test_each_epoch_visits_every_image_once_in_a_different_order(split):
    batches = taken(training_batches(split, 2, draws=3, seed=0, first_epoch=0, share=ALONE), 10)
    first, second = labels_of(batches[:5]), labels_of(batches[5:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    for index, labels, uniform in batches:
        np.testing.assert_array_equal(split.labels[index], labels)  # each with its own label
        assert uniform.shape == (2, 3) and (uniform >= 0).all() and (uniform < 1).all()


def test_rows_that_do_not_fill_a_batch_are_left_out(split):
    batches = taken(training_batches(split, 4, 1, 0, 0, ALONE), 4)
    assert {len(batch[1]) for batch in batches} == {4}
    assert len(set(labels_of(batches[:2]))) == 8


def test_batches_depend_on_seed_epoch_and_step_alone(split):
    whole = taken(training_batches(split, 2, 3, seed=5, first_epoch=0, share=ALONE), 15)
    later = taken(training_batches(split, 2, 3, seed=5, first_epoch=2, share=ALONE), 5)
    for one, two in zip(whole[10:], later, strict=True):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)
    other = taken(training_batches(split, 2, 3, seed=6, first_epoch=0, share=ALONE), 15)
    assert list(labels_of(whole)) != list(labels_of(other))


def test_workers_share_each_batch(split):
    [whole] = taken(training_batches(split, 8, 3, 0, 0, ALONE), 1)
    first = taken(training_batches(split, 8, 3, 0, 0, Share(first=0, replicas=2, parts=4)), 2)
    second = taken(training_batches(split, 8, 3, 0, 0, Share(first=2, replicas=2, parts=4)), 2)
    for index in range(3):
        parts = [batch[index] for batch in (*first, *second)]
        assert [len(part) for part in parts] == [2, 2, 2, 2]
        np.testing.assert_array_equal(np.concatenate(parts), whole[index])


def test_evaluation_batches_cover_the_split_once_in_order_with_one_size(split):
    batches = list(evaluation_batches(split, 4, ALONE))
    assert np.concatenate([batch[0] for batch in batches])[:10].tolist() == list(range(10))
    assert [len(batch[0]) for batch in batches] == [4] * 3
    assert labels_of(batches).tolist() == [*range(10), PADDING_LABEL, PADDING_LABEL]


@pytest.mark.parametrize("images", ["an array", "a part of an array", "a read-only array", "a mapped file"])
def test_the_dataset_yields_the_images_of_the_generated_batches(split, images, tmp_path):
    if images == "a part of an array":
        split = Split(np.repeat(split.images, 2, axis=2)[:, :, ::2], split.labels)
    elif images == "a read-only array":
        split.images.flags.writeable = False
    elif images == "a mapped file":
        split.images.tofile(tmp_path / "images")
        split = Split(np.memmap(tmp_path / "images", np.uint8, "c", shape=split.images.shape), split.labels)
    made = dataset(lambda: itertools.islice(training_batches(split, 4, 3, 0, 0, ALONE), 3), split, rows=4, draws=3)
    wanted = taken(training_batches(split, 4, 3, 0, 0, ALONE), 3)
    for (pixels, labels, draws), (index, *others) in zip(made.as_numpy_iterator(), wanted, strict=True):
        np.testing.assert_array_equal(pixels, split.images[index])
        for left, right in zip((labels, draws), others, strict=True):
            np.testing.assert_array_equal(left, right)

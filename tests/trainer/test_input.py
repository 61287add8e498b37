import itertools

import numpy as np
import pytest
import tensorflow as tf

from trainer.input import NOBODY, Share, Split, dataset, evaluation_batches, load, training_batches

ALONE = Share(first=0, replicas=1, parts=1)


@pytest.fixture
def split():
    labels = np.arange(10)
    return Split(np.full((10, 2, 2, 3), 1, "uint8") * labels[:, None, None, None].astype("uint8"), labels)


def taken(batches, count):
    return list(itertools.islice(batches, count))


def labels_of(batches):
    return np.concatenate([batch[1] for batch in batches])


@pytest.fixture
def files(tmp_path, split):
    """The split as transformed examples, out of order, in two files."""

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    for name, rows in {"a": [7, 1, 4, 9, 0], "b": [2, 8, 3, 6, 5]}.items():
        options = tf.io.TFRecordOptions(compression_type="GZIP")
        with tf.io.TFRecordWriter(str(tmp_path / name), options) as writer:
            for row in rows:
                values = {"image": split.images[row].tobytes(), "label": row, "id": b"%02d" % row}
                features = {key: feature(value) for key, value in values.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return [str(tmp_path / "*")]


@pytest.mark.parametrize("memory_gib", [4.0, 1e-9])
def test_a_split_is_the_same_in_memory_and_on_disk(files, split, memory_gib):
    loaded = load(files, 2, memory_gib)
    assert isinstance(loaded.images, np.memmap) == (memory_gib < 1)
    np.testing.assert_array_equal(loaded.images, split.images)
    np.testing.assert_array_equal(loaded.labels, split.labels)
    assert loaded.digest() == split.digest()


@pytest.mark.parametrize("memory_gib", [4.0, 1e-9])
def test_examples_may_be_left_out(files, split, memory_gib):
    loaded = load(files, 2, memory_gib, leave_out=[b"00", b"07", b"no such"])
    assert loaded.labels.tolist() == [1, 2, 3, 4, 5, 6, 8, 9]
    np.testing.assert_array_equal(loaded.images, split.images[loaded.labels])


def test_the_digest_sees_a_pixel_and_a_label(split):
    images, labels = split.images.copy(), split.labels.copy()
    images[3, 1, 1, 2] ^= 1
    labels[3] = 0
    digests = {split.digest(), Split(images, split.labels).digest(), Split(split.images, labels).digest()}
    assert len(digests) == 3


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own(split):
    batches = taken(training_batches(split, 2, draws=3, seed=0, first_epoch=0, share=ALONE), 10)
    first, second = labels_of(batches[:5]), labels_of(batches[5:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    for images, labels, uniform in batches:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)  # each with its own label
        assert uniform.shape == (2, 3) and (uniform >= 0).all() and (uniform < 1).all()


def test_rows_that_fill_no_batch_are_left_out(split):
    batches = taken(training_batches(split, 4, 1, 0, 0, ALONE), 4)
    assert {len(batch[1]) for batch in batches} == {4}
    assert len(set(labels_of(batches[:2]))) == 8


def test_what_comes_depends_on_seed_epoch_and_step_alone(split):
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


def test_evaluation_goes_through_once_in_order_in_batches_of_one_size(split):
    batches = list(evaluation_batches(split, 4, ALONE))
    assert [batch[0].shape for batch in batches] == [(4, 2, 2, 3)] * 3
    assert labels_of(batches).tolist() == [*range(10), NOBODY, NOBODY]


def test_the_dataset_gives_what_the_generator_gives(split):
    made = dataset(lambda: itertools.islice(training_batches(split, 4, 3, 0, 0, ALONE), 3), split, rows=4, draws=3)
    wanted = taken(training_batches(split, 4, 3, 0, 0, ALONE), 3)
    for got, want in zip(made.as_numpy_iterator(), wanted, strict=True):
        for left, right in zip(got, want, strict=True):
            np.testing.assert_array_equal(left, right)

import io

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from trainer.input import load
from trainer.preprocessing import decode, decode_batch, preprocessing_fn, read_moments


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), "uint8")


def test_an_image_of_the_right_size_is_not_touched(pixels):
    np.testing.assert_array_equal(decode(tf.constant(encoded(pixels[0])), 8), pixels[0])


def test_another_size_is_resized_with_antialiasing():
    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[:, ::2] = 255
    small = decode(tf.constant(encoded(stripes)), 8).numpy()
    assert small.shape == (8, 8, 3) and small.dtype == np.uint8
    assert ((small > 120) & (small < 136)).all()  # sampled without antialiasing it would be black or white


@pytest.fixture(scope="module")
def transformed(pixels, tmp_path_factory):
    """Transform run on twelve images: the folder of the transform graph and the file of examples."""
    output = tmp_path_factory.mktemp("transform")
    spec = {
        "image": tf.io.FixedLenFeature([1], tf.string),
        "label": tf.io.FixedLenFeature([1], tf.int64),
        "id": tf.io.FixedLenFeature([1], tf.string),
    }
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    rows = [
        {"image": [encoded(image)], "label": [index], "id": [b"%02d" % index]} for index, image in enumerate(pixels)
    ]
    with beam.Pipeline() as pipeline, tft_beam.Context(str(output / "tmp")):
        # Out of order, as Beam may leave them.
        raw = (pipeline | beam.Create(rows[::-1]), metadata)
        (data, out_metadata), graph = raw | tft_beam.AnalyzeAndTransformDataset(
            lambda inputs: preprocessing_fn(inputs, {"image_size": 8})
        )
        _ = graph | tft_beam.WriteTransformFn(str(output / "graph"))
        coder = tft.coders.ExampleProtoCoder(out_metadata.schema)
        _ = data | beam.Map(coder.encode) | beam.io.WriteToTFRecord(str(output / "examples"), file_name_suffix=".gz")
    return output


def test_the_moments_are_those_of_all_pixels(transformed, pixels):
    mean, std = read_moments(tft.TFTransformOutput(str(transformed / "graph")))
    flat = pixels.reshape(-1, 3).astype("float64")
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, flat.std(0), rtol=1e-5)


def test_what_training_reads_is_what_serving_decodes(transformed, pixels):
    split = load([str(transformed / "examples*")], 8, memory_gib=1)
    assert split.labels.tolist() == list(range(12))  # in the order of the ids
    served, valid = decode_batch(tf.constant([encoded(image) for image in pixels]), 8)
    np.testing.assert_array_equal(split.images, served)
    np.testing.assert_array_equal(split.images, pixels)
    assert valid.numpy().all()


def test_no_examples_is_an_error_that_names_the_files(tmp_path):
    with pytest.raises(ValueError, match="nothing-here"):
        load([str(tmp_path / "nothing-here*")], 8, memory_gib=1)

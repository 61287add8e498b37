import io

import apache_beam as beam
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from components.data.ingest import tfrecord
from components.data.ingest.images import check
from trainer import serving
from trainer.input import load
from trainer.preprocessing import decode, decode_batch, preprocessing_fn, read_moments
from trainer.vit import ViT


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


def run_transform(images, output):
    """Transform run on encoded images, labelled and named by their number: its graph and examples go under `output`."""
    spec = {
        "image": tf.io.FixedLenFeature([1], tf.string),
        "label": tf.io.FixedLenFeature([1], tf.int64),
        "id": tf.io.FixedLenFeature([1], tf.string),
    }
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    rows = [{"image": [image], "label": [index], "id": [b"%02d" % index]} for index, image in enumerate(images)]
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


@pytest.fixture(scope="module")
def transformed(pixels, tmp_path_factory):
    return run_transform([encoded(image) for image in pixels], tmp_path_factory.mktemp("transform"))


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


def odd_images():
    """Of every colour mode of the two formats, in sizes that are not the model's."""
    rng = np.random.default_rng(1)
    colour = Image.fromarray(rng.integers(0, 256, (21, 13, 3), "uint8"))
    images = {f"JPEG {mode}": (colour.convert(mode), "JPEG", {}) for mode in ("RGB", "L", "CMYK")}
    images |= {f"PNG {mode}": (colour.convert(mode), "PNG", {}) for mode in ("RGB", "L", "P", "1", "RGBA", "LA")}
    images["JPEG progressive"] = colour, "JPEG", {"progressive": True}
    images["PNG 16 bits"] = Image.fromarray(rng.integers(0, 2**16, (21, 13), "uint16")), "PNG", {}
    second = Image.new("RGB", colour.size)
    images["PNG animated"] = colour, "PNG", {"save_all": True, "append_images": [second]}
    for image, kind, options in images.values():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        yield buffer.getvalue()


def test_training_evaluation_and_serving_see_the_same_pixels(tmp_path):
    """The same files through Transform, through a raw example as the Evaluator gives it, and as bytes: equal bits."""
    images = list(odd_images())
    for image in images:
        check(image)  # `data prepare` takes them all
    run_transform(images, tmp_path)
    trained_on = load([str(tmp_path / "examples*")], 8, memory_gib=1).images

    model = ViT(image_size=8, patch_size=4, classes=3, depth=1, width=8, heads=2)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    serving.export(model, ["cat", "dog", "ship"], 8, str(tmp_path / "model"))
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    trained, evaluated, served = (
        signatures["serving_images"](images=tf.constant(trained_on)),
        signatures["serving_default"](examples=tf.constant([tfrecord.example(image, 0, b"") for image in images])),
        signatures["serving_bytes"](image_bytes=tf.constant(images)),
    )
    for answer in evaluated, served:
        assert answer["valid"].numpy().all()
        np.testing.assert_array_equal(answer["probabilities"], trained["probabilities"])
    assert len(np.unique(trained["probabilities"].numpy(), axis=0)) > len(images) / 2  # the model tells them apart


def test_no_examples_is_an_error_that_names_the_files(tmp_path):
    with pytest.raises(ValueError, match="nothing-here"):
        load([str(tmp_path / "nothing-here*")], 8, memory_gib=1)

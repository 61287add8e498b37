"""The SavedModel, called as a model server calls it."""

import io
import struct
import subprocess
import sys
import textwrap
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from tests.helpers.spans import bomb
from trainer import serving
from trainer.vit import ViT

NAMES = ["cat", "dog", "ship"]


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def example(image_bytes=None):
    features = {}
    if image_bytes is not None:
        features["image"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image_bytes]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), "uint8")


@pytest.fixture(scope="module")
def model():
    model = ViT(image_size=8, patch_size=4, classes=3, depth=1, width=8, heads=2)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    serving.export(model, NAMES, str(folder))
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder)).signatures


def test_all_signatures_return_the_predictions_of_the_model(signatures, model, pixels):
    wanted = tf.nn.softmax(model(pixels)).numpy()
    images = [encoded(image) for image in pixels]
    answers = [
        signatures["serving_images"](images=tf.constant(pixels)),
        signatures["serving_bytes"](image_bytes=tf.constant(images)),
        signatures["serving_default"](examples=tf.constant([example(image) for image in images])),
    ]
    for answer in answers:
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-6)
        assert answer["label"].numpy().tolist() == wanted.argmax(1).tolist()
        assert [name.decode() for name in answer["class"].numpy()] == [NAMES[i] for i in wanted.argmax(1)]
        assert answer["valid"].numpy().all()


def test_explain_adds_the_attention_of_every_block_and_head(signatures, model, pixels):
    rows = [encoded(pixels[0]), b"not an image", encoded(pixels[1])]
    answer = signatures["explain"](image_bytes=tf.constant(rows))
    plain = signatures["serving_bytes"](image_bytes=tf.constant(rows))
    assert answer.keys() == plain.keys() | {"attention"}
    np.testing.assert_allclose(answer["probabilities"], plain["probabilities"], atol=1e-6)
    for name in ["label", "class", "valid"]:
        assert answer[name].numpy().tolist() == plain[name].numpy().tolist()
    assert answer["attention"].dtype == tf.float32
    assert answer["attention"].shape == (3, 1, 2, 5, 5)
    np.testing.assert_allclose(answer["attention"].numpy()[[0, 2]], model.explain(pixels[:2])[1], atol=1e-6)
    assert (answer["attention"].numpy()[1] == 0).all()


def test_the_stored_keras_model_is_the_same_model(folder, model, pixels):
    loaded = serving.load_vit(str(folder))
    np.testing.assert_array_equal(loaded(pixels), model(pixels))
    assert loaded.get_config() == model.get_config()


def test_weights_are_written_once(folder):
    written = tf.train.list_variables(str(folder / "variables" / "variables"))
    assert sum(name.endswith("VARIABLE_VALUE") for name, _ in written) == len(serving.load_vit(str(folder)).weights)


def test_a_savedmodel_without_a_keras_model_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/assets.extra/vit.keras is missing.*warm_start=false"):
        serving.load_vit(str(tmp_path))


def test_an_unreadable_or_other_keras_model_is_rejected(tmp_path):
    file = tmp_path / serving.KERAS_MODEL
    file.parent.mkdir()
    file.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=f"{file} cannot be read"):
        serving.load_vit(str(tmp_path))
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(file)
    with pytest.raises(ValueError, match=f"{file} holds a Sequential, not a ViT"):
        serving.load_vit(str(tmp_path))


def test_a_row_that_does_not_decode_does_not_affect_the_others(signatures, model, pixels):
    rows = [encoded(pixels[0]), b"<html>not an image</html>", b"", encoded(pixels[1])[:-30], encoded(pixels[1])]
    answer = signatures["serving_bytes"](image_bytes=tf.constant(rows))
    assert answer["valid"].numpy().tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(
        answer["probabilities"].numpy()[[0, 4]], tf.nn.softmax(model(pixels[:2])).numpy(), atol=1e-6
    )
    assert answer["label"].numpy()[1:4].tolist() == [-1, -1, -1]
    assert answer["class"].numpy()[1:4].tolist() == [b"", b"", b""]
    assert (answer["probabilities"].numpy()[1:4] == 0).all()


def test_a_small_file_of_a_huge_image_is_not_decoded(signatures, pixels):
    small = bomb(5_000)
    hidden = small[:8] + b"\0\0\0\0abCd" + struct.pack(">I", zlib.crc32(b"abCd")) + small[8:]  # a chunk before the size
    rows = [encoded(pixels[0]), bomb(30_000), small, hidden, b"GIF89a" + bytes(100), encoded(pixels[1])]
    answer = signatures["serving_bytes"](image_bytes=tf.constant(rows))
    assert answer["valid"].numpy().tolist() == [True, False, False, False, False, True]


def test_bytes_that_are_not_an_example_are_an_invalid_row(signatures, pixels):
    two = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a", b"b"]))
    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    odd = [
        tf.train.Example(features=tf.train.Features(feature={"image": one})).SerializeToString()
        for one in (two, number)
    ]
    rows = [example(encoded(pixels[0])), b"<html>", *odd, example(encoded(pixels[1]))]
    answer = signatures["serving_default"](examples=tf.constant(rows))
    assert answer["valid"].numpy().tolist() == [True, False, False, False, True]


def test_warm_up_requests_are_those_that_a_client_sends(model, pixels, signatures, tmp_path):
    serving.export(model, NAMES, str(tmp_path / "model"), warmup=pixels)
    [*records] = tf.data.TFRecordDataset(str(tmp_path / "model" / serving.WARMUP)).as_numpy_iterator()
    requests = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    asked = [(request.model_spec.signature_name, *request.inputs) for request in requests]
    assert asked == [("serving_bytes", "image_bytes")] * 2 + [("serving_images", "images")] * 2
    rows = tf.make_ndarray(requests[1].inputs["image_bytes"])
    wanted = signatures["serving_images"](images=tf.constant(pixels))["probabilities"]
    np.testing.assert_array_equal(signatures["serving_bytes"](image_bytes=tf.constant(rows))["probabilities"], wanted)


def test_a_batch_without_valid_rows_and_an_empty_batch(signatures):
    nothing_valid = signatures["serving_bytes"](image_bytes=tf.constant([b"no", b"neither"]))
    assert nothing_valid["valid"].numpy().tolist() == [False, False]
    empty = signatures["serving_bytes"](image_bytes=tf.constant([], tf.string))
    assert empty["probabilities"].shape == (0, 3)
    explained = signatures["explain"](image_bytes=tf.constant([], tf.string))
    assert explained["attention"].shape == (0, 1, 2, 5, 5)


def test_an_example_without_an_image_is_an_invalid_row(signatures, pixels):
    rows = [example(), example(encoded(pixels[0]))]
    assert signatures["serving_default"](examples=tf.constant(rows))["valid"].numpy().tolist() == [False, True]


def test_images_of_other_sizes_modes_and_formats_are_accepted(signatures):
    rng = np.random.default_rng(0)
    rows = [
        encoded(rng.integers(0, 256, (50, 31, 3), "uint8"), "JPEG"),
        encoded(rng.integers(0, 256, (3, 5, 3), "uint8")),
        encoded(rng.integers(0, 256, (8, 8), "uint8")),
        encoded(rng.integers(0, 256, (8, 8, 4), "uint8")),
    ]
    assert signatures["serving_bytes"](image_bytes=tf.constant(rows))["valid"].numpy().all()


def test_it_loads_without_the_code_of_this_project(folder, pixels, tmp_path):
    (tmp_path / "image.png").write_bytes(encoded(pixels[0]))
    script = f"""
        import sys
        import tensorflow as tf
        model = tf.saved_model.load({str(folder)!r})
        answer = model.signatures["serving_bytes"](image_bytes=tf.constant([open("image.png", "rb").read()]))
        assert not any(name.split(".")[0] in ("trainer", "components", "pipeline") for name in sys.modules)
        print(answer["class"].numpy()[0].decode())
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in NAMES

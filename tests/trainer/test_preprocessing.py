import io
import json
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from PIL import Image, ImageOps

from components.data.ingest import tfrecord
from components.data.ingest.images import check, examine
from tests.helpers.training import write_graph
from trainer import serving
from trainer.framing import Framing
from trainer.input import decode_by_framing, decode_by_graph, load
from trainer.preprocessing import decode, decode_batch, preprocessing_fn
from trainer.vit import ViT


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), "uint8")


def test_an_image_of_the_right_size_is_not_changed(pixels):
    np.testing.assert_array_equal(decode(tf.constant(encoded(pixels[0])), Framing(8)), pixels[0])


def test_another_size_is_resized_with_antialiasing():
    stripes = np.zeros((64, 64, 3), "uint8")
    stripes[:, ::2] = 255
    small = decode(tf.constant(encoded(stripes)), Framing(8)).numpy()
    assert small.shape == (8, 8, 3) and small.dtype == np.uint8
    assert ((small > 120) & (small < 136)).all()  # without antialiasing the pixels would be black or white


def run_transform(images, output, stored_size=8, **framing):
    """Run Transform, and write encoded images as raw examples, labelled and named by their number, to `output`."""
    graph = write_graph(output, stored_size, **framing)
    with tf.io.TFRecordWriter(str(output / "examples")) as writer:
        for number, image in enumerate(images):
            writer.write(tfrecord.example(image, number, b"%02d" % number))
    return tft.TFTransformOutput(str(graph))


def read(output, transform, size=8):
    return load([str(output / "examples*")], decode_by_graph(transform), size)


def test_training_reads_the_pixels_that_serving_decodes(pixels, tmp_path):
    images = [encoded(image) for image in pixels]
    split = read(tmp_path, run_transform(images, tmp_path))
    assert split.labels.tolist() == list(range(12))
    served, valid = decode_batch(tf.constant(images), Framing(8))
    np.testing.assert_array_equal(split.images, served)
    np.testing.assert_array_equal(split.images, pixels)
    assert valid.numpy().all()


def test_training_images_may_be_kept_at_another_size(pixels, tmp_path):
    images = [encoded(image) for image in pixels]
    transform = run_transform(images, tmp_path, stored_size=6, resize="crop")
    stored = read(tmp_path, transform, 6).images
    np.testing.assert_array_equal(stored, decode_batch(tf.constant(images), Framing(6, "crop"))[0])
    by_framing = decode_by_framing(Framing(8, "crop"))
    np.testing.assert_array_equal(load([str(tmp_path / "examples*")], by_framing, 8).images, pixels)


def test_transform_has_nothing_to_analyze():
    """TFX's Transform would otherwise read and decode all training images."""
    config = {"framing": json.dumps({"image_size": 8}), "stored_size": 10}
    specs = {"image": tf.TensorSpec([None, 1], tf.string)} | {
        name: tf.TensorSpec([None, 1], dtype) for name, dtype in {"label": tf.int64, "id": tf.string}.items()
    }
    assert tft.get_analyze_input_columns(lambda inputs: preprocessing_fn(inputs, config), specs) == []


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_an_image_is_turned_upright(format, little, resize):
    """The eight orientations of one picture give equal pixels, alone and in one batch."""
    framing = Framing(24, resize, (9, 8, 7))
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (48, 32, 3), "uint8"))
    stored = {1: picture} | {number: picture.transpose(TO_STORED[number]) for number in TO_STORED}
    images = [encoded(np.asarray(image), format, exif=exif(number, little)) for number, image in stored.items()]
    upright = [encoded(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(image))))) for image in images]
    wanted = np.stack([decode(tf.constant(image), framing) for image in upright])
    if format == "PNG":  # a JPEG's pixels depend on the direction of its blocks
        assert (wanted == wanted[0]).all()
    together, valid = decode_batch(tf.constant(images), framing)
    np.testing.assert_array_equal(together, wanted)
    alone = [decode_batch(tf.constant([image]), framing)[0][0] for image in images]
    np.testing.assert_array_equal(alone, wanted)
    assert valid.numpy().all()


TO_STORED = {  # transpositions from an upright picture to its stored pixels, by orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def exif(orientation, little=True, kind=3, tag=0x0112, entries=3):
    """Return Exif data whose middle entry is the orientation."""
    order = "<" if little else ">"
    other = struct.pack(order + "HHII", 0x010F, 2, 4, 0)
    entry = struct.pack(order + "HHIHH", tag, kind, 1, orientation, 0)
    rows = [other, entry, other][: max(entries, 2)]
    header = (b"II*\0" if little else b"MM\0*") + struct.pack(order + "I", 8)
    return b"Exif\0\0" + header + struct.pack(order + "H", entries) + b"".join(rows) + bytes(4)


def test_damaged_exif_data_counts_as_upright(pixels):
    good = exif(6)
    damaged = [
        exif(0),
        exif(9),
        exif(6, kind=4),
        exif(6, tag=0x0113),
        good[:6],
        good[:20],
        good[:10] + b"\xff\xff\xff\x7f" + good[14:],  # the directory is beyond the end
        good[:10] + b"\xff\xff\xff\xff" + good[14:],
        good.replace(b"II*\0", b"II+\0"),
        b"Exif\0\0",
    ]
    for kind in "PNG", "JPEG":
        plain = decode(tf.constant(encoded(pixels[0], kind)), Framing(8))
        for content in damaged:
            np.testing.assert_array_equal(
                decode(tf.constant(encoded(pixels[0], kind, exif=content)), Framing(8)), plain
            )
    # The number of entries may be too large, as long as the entry itself is there.
    turned = decode(tf.constant(encoded(pixels[0], "PNG", exif=exif(6, entries=999))), Framing(8))
    np.testing.assert_array_equal(turned, np.rot90(pixels[0], -1))


def test_a_transparent_image_is_shown_on_the_background():
    faded = Image.new("RGBA", (8, 8), (10, 20, 30, 128))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    for image, options, wanted in (
        (faded, {}, (105, 110, 115)),
        (faded.convert("LA"), {}, None),
        (palette, {"transparency": 1}, (200, 200, 200)),
        (palette, {}, (200, 100, 50)),
    ):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        shown = decode_batch(tf.constant([buffer.getvalue()]), Framing(8, background=(200, 200, 200)))[0][0].numpy()
        grey = round((image.convert("LA").getpixel((0, 0))[0] * 128 + 200 * 127) / 255)
        assert (shown == (wanted or (grey,) * 3)).all()


def test_an_image_becomes_square_as_its_framing_says():
    picture = np.zeros((30, 60, 3), "uint8")
    picture[:, 15:45] = 255  # the middle is white
    image = tf.constant(encoded(picture))
    assert (decode(image, Framing(10, "crop")).numpy() == 255).all()
    padded = decode(image, Framing(10, "pad", (1, 2, 3))).numpy()
    assert (padded[[0, 1, 8, 9]] == (1, 2, 3)).all() and (padded[4:6, 4:6] == 255).all()
    stretched = decode(image, Framing(10, "stretch")).numpy()
    assert (stretched[:, 0] == 0).all() and (stretched[:, 5] == 255).all()
    strip = tf.constant(encoded(np.full((1, 20_000, 3), 7, "uint8")))
    for resize in "stretch", "crop", "pad":
        assert decode(strip, Framing(10, resize)).shape == (10, 10, 3)


def test_a_strip_is_stretched_in_bounded_memory():
    """Resized in one step, it would take memory for the new height times the old width."""
    strip = tf.constant(encoded(np.arange(300_000, dtype="uint32").astype("uint8")[None].repeat(2, 0)))
    assert abs(decode(strip, Framing(224)).numpy().astype(int) - 127).max() <= 2


def test_an_image_that_takes_too_much_time_or_memory_is_invalid():
    noise = np.random.default_rng(3).integers(0, 256, (32, 32, 3), "uint8")
    image = encoded(noise, "JPEG", progressive=True)
    last = image.rindex(b"\xff\xda")
    bomb = image[:last] + image[last:-2] * 120 + image[-2:]
    assert decode_batch(tf.constant([image, bomb]), Framing(8))[1].numpy().tolist() == [True, False]
    assert examine(bomb)[0] == "a JPEG of more than 100 scans"
    shape = image.index(b"\xff\xc2") + 5
    huge = image[:shape] + struct.pack(">HH", 8200, 8200) + image[shape + 4 :]
    assert examine(huge)[0] == "a progressive JPEG of more than 67,108,864 pixels"
    assert not decode_batch(tf.constant([huge]), Framing(8))[1].numpy().any()


def test_the_metadata_of_a_second_jpeg_and_of_other_segments_is_ignored(pixels):
    plain, turned = encoded(pixels[0], "JPEG"), encoded(pixels[1], "JPEG", exif=exif(6))
    wanted = decode(tf.constant(plain), Framing(8))
    for image in (plain + turned, plain[:2] + b"\xff\xfe\0\x20" + exif(6)[:30] + plain[2:]):
        np.testing.assert_array_equal(decode(tf.constant(image), Framing(8)), wanted)
    comment = b"\xff\xfe\0\x08Exif\0\0"
    upright = decode(tf.constant(turned), Framing(8))
    np.testing.assert_array_equal(decode(tf.constant(turned[:2] + comment + turned[2:]), Framing(8)), upright)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale():
    """The picture of a camera equals the one that Pillow decodes at the same scale; a PNG of its size is refused."""
    noise = np.random.default_rng(3).integers(0, 256, (60, 80, 3), "uint8")
    picture = Image.fromarray(noise).resize((8000, 6000))
    image = encoded(np.asarray(picture), "JPEG")
    assert check(image).shape == (6000, 8000, 3)
    reduced = Image.open(io.BytesIO(image))
    reduced.draft("RGB", (1000, 750))
    assert reduced.size == (1000, 750)
    batch = tf.constant([image, encoded(np.zeros((4097, 4097), "uint8"))])
    pixels, valid = decode_batch(batch, Framing(64))
    assert valid.numpy().tolist() == [True, False]
    np.testing.assert_array_equal(pixels[0], decode(tf.constant(encoded(np.asarray(reduced))), Framing(64)))


def odd_images():
    """Return images of every colour mode of the two formats, in other sizes than the model's."""
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
    """Files decoded by Transform, from raw examples as in the Evaluator, and from bytes give equal pixels."""
    images = list(odd_images())
    for image in images:
        check(image)  # `data prepare` accepts every image
    trained_on = read(tmp_path, run_transform(images, tmp_path)).images

    model = ViT(image_size=8, patch_size=4, classes=3, depth=1, width=8, heads=2)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    serving.export(model, ["cat", "dog", "ship"], str(tmp_path / "model"))
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    trained, evaluated, served = (
        signatures["serving_images"](images=tf.constant(trained_on)),
        signatures["serving_default"](examples=tf.constant([tfrecord.example(image, 0, b"") for image in images])),
        signatures["serving_bytes"](image_bytes=tf.constant(images)),
    )
    for answer in evaluated, served:
        assert answer["valid"].numpy().all()
        np.testing.assert_array_equal(answer["probabilities"], trained["probabilities"])
    assert (
        len(np.unique(trained["probabilities"].numpy(), axis=0)) > len(images) / 2
    )  # the model distinguishes most images

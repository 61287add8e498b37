"""How an encoded image becomes pixels. Training, evaluation and serving all go through `decode`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from trainer.examples import ID, IMAGE, LABEL, MAX_PIXELS, MAX_SIDE

# The size stands in PNG's first chunk. Decoders also pass over other chunks before it, which would hide it from us.
_PNG_START, _JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff"
_MOMENTS = "pixel_moments"  # the file in the transform graph
_SUMS = ["images", "r", "g", "b", "rr", "gg", "bb"]  # what the file adds up: 1, means and mean squares of each image


def decode(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """PNG or JPEG bytes (scalar string) to uint8 pixels [size, size, 3].

    An image of another size is resized with antialiasing. Raises InvalidArgumentError when the bytes do not decode.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def resized() -> tf.Tensor:
        pixels = tf.image.resize(image, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
    return tf.ensure_shape(tf.cond(fits, lambda: image, resized), (size, size, 3))


def _guarded(encoded: tf.Tensor) -> tf.Tensor:
    """Return the bytes, if they are a PNG or JPEG whose header promises at most MAX_PIXELS, and MAX_SIDE a side.

    A few kilobytes may promise gigabytes of pixels. Raises InvalidArgumentError, before anything is decoded.
    """
    png = tf.equal(tf.strings.substr(encoded, 0, 16), _PNG_START)
    jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), _JPEG_SIGNATURE)

    def png_shape() -> tf.Tensor:  # the first eight bytes of the first chunk's data, big-endian
        header = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.uint8)
        return tf.reduce_sum(tf.reshape(tf.cast(header, tf.int64), (2, 4)) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)

    def jpeg_shape() -> tf.Tensor:
        return tf.io.extract_jpeg_shape(encoded, tf.int64)[:2]

    unusable = tf.fill([2], tf.constant(MAX_PIXELS, tf.int64))  # beyond both bounds
    shape = tf.case([(png, png_shape), (jpeg, jpeg_shape)], default=lambda: unusable)
    bounds = [  # the sides as well: their product may overflow
        tf.debugging.assert_less_equal(shape, tf.cast(MAX_SIDE, tf.int64)),
        tf.debugging.assert_less_equal(tf.reduce_prod(shape), tf.cast(MAX_PIXELS, tf.int64)),
    ]
    with tf.control_dependencies(bounds):
        return tf.identity(encoded)


def image_of(example: tf.Tensor) -> tf.Tensor:
    """The encoded image (scalar string) of a serialized raw example; empty where it has none.

    Raises InvalidArgumentError when it is no example, or its image is not one string.
    """
    feature = tf.io.FixedLenFeature([], tf.string, default_value="")
    return tf.io.parse_single_example(example, {IMAGE: feature})[IMAGE]


def decode_batch(
    encoded: tf.Tensor, size: int, read: Callable[[tf.Tensor], tf.Tensor] = tf.identity
) -> tuple[tf.Tensor, tf.Tensor]:
    """Encoded images (string [N]) to pixels (uint8 [N, size, size, 3]) and whether each decoded (bool [N]).

    read: what makes an encoded image of each row, where a row is something else.

    A row that does not decode, or promises more than MAX_PIXELS, is all zeros, and leaves the others alone.
    """
    count = tf.size(encoded, tf.int64)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
    decoded = rows.map(
        lambda row, image: (row, decode(_guarded(read(image)), size)), num_parallel_calls=tf.data.AUTOTUNE
    )
    # One more row, past the end, keeps the batch from being empty when nothing decodes.
    past_end = tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3), tf.uint8)))
    batch = decoded.ignore_errors().concatenate(past_end).batch(count + 1)
    index, pixels = batch.get_single_element()
    # Scattered as int32: TensorFlow has no uint8 scatter on every device.
    images = tf.scatter_nd(index[:, None], tf.cast(pixels, tf.int32), (count + 1, size, size, 3))[:-1]
    valid = tf.scatter_nd(index[:, None], tf.ones_like(index), (count + 1,))[:-1]
    return tf.cast(images, tf.uint8), tf.cast(valid, tf.bool)


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Raw to transformed example: pixels as raw uint8 bytes, label, id.

    `custom_config["image_size"]` is the model's image size. The moments of the pixels of the analysed split go into
    the transform graph's folder, where `read_moments` finds them.
    """
    size = custom_config["image_size"]

    def row(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode(encoded, size)
        # The pixels are the last field of a serialized tensor: cut off what stands before them.
        raw = tf.strings.substr(tf.io.serialize_tensor(image), -size * size * 3, size * size * 3)
        pixels = tf.cast(image, tf.int64)  # whole numbers add up exactly
        sums = tf.reduce_sum([pixels, pixels**2], axis=(1, 2))
        mean, mean_square = tf.unstack(tf.cast(sums / size**2, tf.float32))
        return raw, mean, mean_square

    raw, mean, mean_square = tf.map_fn(
        row,
        tf.reshape(inputs[IMAGE], [-1]),
        fn_output_signature=(
            tf.TensorSpec((), tf.string),
            tf.TensorSpec((3,), tf.float32),
            tf.TensorSpec((3,), tf.float32),
        ),
    )
    # Of its analyzers' results TFT writes only vocabularies to a file. A vocabulary with weights is a table of sums.
    sums = tf.concat([tf.ones_like(mean[:, :1]), mean, mean_square], axis=1)
    names = tf.tile([_SUMS], [tf.shape(sums)[0], 1])
    tft.vocabulary(names, weights=sums, store_frequency=True, vocab_filename=_MOMENTS)
    return {IMAGE: raw, LABEL: tf.reshape(inputs[LABEL], [-1]), ID: tf.reshape(inputs[ID], [-1])}


def read_moments(transform_output: tft.TFTransformOutput) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the pixels (0 to 255), each float64 [3], as Transform measured them."""
    with tf.io.gfile.GFile(transform_output.vocabulary_file_by_name(_MOMENTS)) as file:
        sums = {name: float(total) for total, name in (line.split() for line in file)}
    # Every image has as many pixels as the next, so the mean of their means is the mean of all pixels.
    mean, mean_square = np.array([sums.get(name, 0.0) for name in _SUMS[1:]]).reshape(2, 3) / sums["images"]
    return mean, np.sqrt(np.maximum(mean_square - mean**2, 0.0))

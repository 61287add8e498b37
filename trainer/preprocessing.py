"""Decoding of encoded images to pixels. Training, evaluation and serving all use `decode`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from trainer.examples import ID, IMAGE, LABEL, MAX_PIXELS, MAX_SIDE

# The size of a PNG is in the chunk IHDR, which must be the first. Decoders also accept files with other chunks before
# it, in which `_check_header` would not find the size. So the signature here includes the start of IHDR.
_PNG_START, _JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff"
_MOMENTS = "pixel_moments"  # file in the transform graph
_SUMS = ["images", "r", "g", "b", "rr", "gg", "bb"]  # sums in that file: number, means and mean squares of the images


def decode(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decode an image, and resize it with antialiasing if it has another size.

    Args:
        encoded: PNG or JPEG, scalar string.
        size: Pixels on a side of the result.

    Returns:
        Pixels, uint8 [size, size, 3].

    Raises:
        InvalidArgumentError: If the bytes do not decode.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def resize() -> tf.Tensor:
        pixels = tf.image.resize(image, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
    return tf.ensure_shape(tf.cond(fits, lambda: image, resize), (size, size, 3))


def _check_header(encoded: tf.Tensor) -> tf.Tensor:
    """Return the bytes if they are a PNG or JPEG whose header declares an image within MAX_PIXELS and MAX_SIDE.

    The check needs no decoding, because a few kilobytes may decode to gigabytes of pixels.

    Raises:
        InvalidArgumentError: If the bytes are not such an image.
    """
    png = tf.equal(tf.strings.substr(encoded, 0, 16), _PNG_START)
    jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), _JPEG_SIGNATURE)

    def png_shape() -> tf.Tensor:
        # Width and height are the first eight bytes of the chunk's data, big-endian.
        header = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.uint8)
        return tf.reduce_sum(tf.reshape(tf.cast(header, tf.int64), (2, 4)) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)

    def jpeg_shape() -> tf.Tensor:
        return tf.io.extract_jpeg_shape(encoded, tf.int64)[:2]

    too_large = tf.fill([2], tf.constant(MAX_PIXELS, tf.int64))  # the size of other formats, which both checks reject
    shape = tf.case([(png, png_shape), (jpeg, jpeg_shape)], default=lambda: too_large)
    checks = [  # the sides are checked as well, because their product may overflow
        tf.debugging.assert_less_equal(shape, tf.cast(MAX_SIDE, tf.int64)),
        tf.debugging.assert_less_equal(tf.reduce_prod(shape), tf.cast(MAX_PIXELS, tf.int64)),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(encoded)


def read_image(example: tf.Tensor) -> tf.Tensor:
    """Return the encoded image (scalar string) of a serialized raw example; empty if the example has no image.

    Raises:
        InvalidArgumentError: If it is not a serialized tf.Example, or its image is not one string.
    """
    feature = tf.io.FixedLenFeature([], tf.string, default_value="")
    return tf.io.parse_single_example(example, {IMAGE: feature})[IMAGE]


def decode_batch(
    encoded: tf.Tensor, size: int, read: Callable[[tf.Tensor], tf.Tensor] = tf.identity
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a batch of images. An image that does not decode, or is too large, does not affect the others.

    Args:
        encoded: Encoded images, string [N].
        size: Pixels on a side of the result.
        read: Function that turns a row of `encoded` into an encoded image, if the rows are not images themselves.

    Returns:
        Pixels, uint8 [N, size, size, 3], and whether each image is valid, bool [N]. The pixels of an invalid image are
        all 0.
    """
    count = tf.size(encoded, tf.int64)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
    decoded = rows.map(
        lambda row, image: (row, decode(_check_header(read(image)), size)), num_parallel_calls=tf.data.AUTOTUNE
    )
    # The batch gets one additional row, because it must not be empty if no image decodes.
    past_end = tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3), tf.uint8)))
    batch = decoded.ignore_errors().concatenate(past_end).batch(count + 1)
    index, pixels = batch.get_single_element()
    # The rows are scattered as int32, because TensorFlow cannot scatter uint8 on every device.
    images = tf.scatter_nd(index[:, None], tf.cast(pixels, tf.int32), (count + 1, size, size, 3))[:-1]
    valid = tf.scatter_nd(index[:, None], tf.ones_like(index), (count + 1,))[:-1]
    return tf.cast(images, tf.uint8), tf.cast(valid, tf.bool)


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Turn raw examples into transformed examples, for TFX's Transform.

    It also writes the moments of the pixels of the analysed split to the folder of the transform graph, for
    `read_moments`.

    Args:
        inputs: Features of a batch of raw examples.
        custom_config: The model's image size, in pixels, as `image_size`.

    Returns:
        Features of transformed examples: pixels as raw uint8 bytes, label and id.
    """
    size = custom_config["image_size"]

    def transform_row(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode(encoded, size)
        # The pixels are the last field of a serialized tensor, so only its end is kept.
        raw = tf.strings.substr(tf.io.serialize_tensor(image), -size * size * 3, size * size * 3)
        pixels = tf.cast(image, tf.int64)  # integers add up without rounding
        sums = tf.reduce_sum([pixels, pixels**2], axis=(1, 2))
        mean, mean_square = tf.unstack(tf.cast(sums / size**2, tf.float32))
        return raw, mean, mean_square

    raw, mean, mean_square = tf.map_fn(
        transform_row,
        tf.reshape(inputs[IMAGE], [-1]),
        fn_output_signature=(
            tf.TensorSpec((), tf.string),
            tf.TensorSpec((3,), tf.float32),
            tf.TensorSpec((3,), tf.float32),
        ),
    )
    # Vocabularies are the only results of analyzers that TensorFlow Transform writes to files. A vocabulary with
    # weights is used here as a table of sums.
    sums = tf.concat([tf.ones_like(mean[:, :1]), mean, mean_square], axis=1)
    names = tf.tile([_SUMS], [tf.shape(sums)[0], 1])
    tft.vocabulary(names, weights=sums, store_frequency=True, vocab_filename=_MOMENTS)
    return {IMAGE: raw, LABEL: tf.reshape(inputs[LABEL], [-1]), ID: tf.reshape(inputs[ID], [-1])}


def read_moments(transform_output: tft.TFTransformOutput) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the pixels (0 to 255) that Transform measured, each float64 [3]."""
    with tf.io.gfile.GFile(transform_output.vocabulary_file_by_name(_MOMENTS)) as file:
        sums = {name: float(total) for total, name in (line.split() for line in file)}
    # All images have the same number of pixels, so the mean of their means is the mean of all pixels.
    mean, mean_square = np.array([sums.get(name, 0.0) for name in _SUMS[1:]]).reshape(2, 3) / sums["images"]
    return mean, np.sqrt(np.maximum(mean_square - mean**2, 0.0))

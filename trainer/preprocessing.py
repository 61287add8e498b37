"""Decoding of encoded images to pixels. Training, evaluation and serving all use `decode`."""

import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import tensorflow as tf

from trainer.examples import ID, IMAGE, LABEL, MAX_JPEG_PIXELS, MAX_PIXELS, MAX_PROGRESSIVE_PIXELS, MAX_SCANS, MAX_SIDE
from trainer.exif import orientation
from trainer.framing import Framing

PIXELS = "pixels"  # feature of the transform graph

_SCAN, _PROGRESSIVE = b"\xff\xda", b"\xff\xc2"  # JPEG markers
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# The size of a PNG is in the chunk IHDR, which must be the first. Decoders also accept files with other chunks before
# it, in which `_png_shape` would not find the size. So the signature here includes the start of IHDR.
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PARALLEL = 32  # images of a batch that are decoded at a time, if there are as many cores; AUTOTUNE begins with one
_SCALES = (1, 2, 4, 8)  # a JPEG can be decoded with its sides divided by one of these
# Images that may be rotated, mirrored or transparent: those with Exif data, and PNGs with opacity in a chunk or in
# every pixel. `\C` is any byte.
_SPECIAL = rb"\C*(Exif\x00\x00|eXIf|tRNS|PNG\r\n\x1a\n\C{17}[\x04\x06])\C*"


def decode(encoded: tf.Tensor, framing: Framing, plain: bool = False) -> tf.Tensor:
    """Decode an image to a square of pixels. It is upright as in a viewer, and transparency shows the background.

    A JPEG is decoded at 1/1, 1/2, 1/4 or 1/8 of its size: the smallest at which no side is shorter than the result,
    which saves most of the time for the pictures of a camera. If the image would still have more than MAX_PIXELS, the
    scale is smaller. Then the image is resized with antialiasing, unless it already has the size of the result.

    Args:
        encoded: PNG or JPEG, scalar string.
        framing: How the image becomes a square.
        plain: Whether the image is known to be upright and opaque. It saves operations that take more time than the
            decoding of a small image.

    Returns:
        Pixels, uint8 [size, size, 3].

    Raises:
        InvalidArgumentError: If the bytes do not decode, or the image is too large.
    """
    pixels: tf.Tensor = _decoder(framing, plain)(encoded)
    return pixels


@cache
def _decoder(framing: Framing, plain: bool) -> tf.types.experimental.PolymorphicFunction:
    """Return `decode` for one framing as a TensorFlow function. It is kept, because tracing takes half a second."""
    return tf.function(
        partial(_decode, framing=framing, plain=plain), input_signature=[tf.TensorSpec((), tf.string)], autograph=False
    )


def _decode(encoded: tf.Tensor, framing: Framing, plain: bool) -> tf.Tensor:
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), _JPEG_SIGNATURE)
    shape = tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded, tf.int64)[:2], lambda: _png_shape(encoded))
    pixels = tf.reduce_prod(shape)
    jpeg = tf.where(is_jpeg, encoded, b"")
    # Neither marker can occur in the pixels of a JPEG. A thumbnail in its metadata may add a few scans.
    scans = tf.size(tf.strings.split(jpeg, _SCAN)) - 1
    progressive = tf.size(tf.strings.split(tf.where(pixels > MAX_PROGRESSIVE_PIXELS, jpeg, b""), _PROGRESSIVE)) > 1
    limit = tf.where(is_jpeg, tf.constant(MAX_JPEG_PIXELS, tf.int64), MAX_PIXELS)
    is_small = tf.reduce_all(shape <= MAX_SIDE) & (pixels <= limit) & (scans <= MAX_SCANS) & ~progressive
    # An image that needs too much memory or time is replaced by an empty string, which does not decode.
    checked = tf.where(is_small, encoded, b"")
    if plain:
        return _fit(_decode_at_scale(checked, is_jpeg, shape, framing.size), framing)
    image = tf.cond(
        is_jpeg,
        lambda: _decode_at_scale(checked, is_jpeg, shape, framing.size),
        lambda: _decode_png_on_background(checked, framing),
    )
    return _fit(_turn_upright(image, orientation(encoded, is_jpeg)), framing)


def _png_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Return width and height of a PNG, int64 [2]. For other bytes, return more than MAX_SIDE."""
    # Width and height are the first eight bytes of the data of IHDR, big-endian.
    start = tf.strings.join([encoded, bytes(24)])  # at least 24 bytes, as `substr` needs
    sides = tf.cast(tf.io.decode_raw(tf.strings.substr(start, 16, 8), tf.uint8), tf.int64)
    sides = tf.reduce_sum(tf.reshape(sides, (2, 4)) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)
    return tf.where(tf.equal(tf.strings.substr(encoded, 0, 16), _PNG_START), sides, MAX_SIDE + 1)


def _decode_at_scale(encoded: tf.Tensor, is_jpeg: tf.Tensor, shape: tf.Tensor, size: int) -> tf.Tensor:
    """Decode a JPEG at the scale that `decode` describes, or a PNG at its full size."""
    sides = shape // tf.constant(_SCALES[1:], tf.int64)[:, None]
    chosen = tf.reduce_all(sides >= size, axis=1) | (tf.reduce_prod(sides * 2, axis=1) > MAX_PIXELS)
    number = tf.reduce_sum(tf.cast(chosen & is_jpeg, tf.int32))
    branches = [
        # The decoder's usual arithmetic is a little faster and less accurate. With this one, it equals Pillow's pixel
        # by pixel. TensorFlow's operation decodes a PNG as well.
        lambda scale=scale: tf.io.decode_jpeg(encoded, channels=3, ratio=scale, dct_method="INTEGER_ACCURATE")
        for scale in _SCALES
    ]
    return tf.switch_case(number, branches)


def _decode_png_on_background(encoded: tf.Tensor, framing: Framing) -> tf.Tensor:
    """Decode a PNG, and compose it over the background if it is transparent."""
    image = tf.io.decode_png(encoded, channels=4)
    colours, opacity = image[:, :, :3], image[:, :, 3:]
    # TensorFlow fills in the largest value of the PNG's bits, such as 3 for 2 bits, where a PNG has no transparency.
    bits = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 24, 1), tf.uint8)[0], tf.int32)
    opaque = tf.cast(tf.minimum(2**bits - 1, 255), tf.uint8)

    def compose() -> tf.Tensor:
        weight = tf.cast(opacity, tf.uint16)  # all sums fit into 16 bits
        mixed = tf.cast(colours, tf.uint16) * weight + tf.constant(framing.background, tf.uint16) * (255 - weight)
        return tf.cast((mixed + 127) // 255, tf.uint8)

    return tf.cond(tf.reduce_all(tf.equal(opacity, opaque)), lambda: colours, compose)


def _turn_upright(image: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Turn an image according to its Exif orientation, from 1 (upright) to 8."""

    def turn() -> tf.Tensor:
        turned = tf.cond(value > 4, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        kind = (value - 1) % 4  # 1: mirror, 2: rotate by half a turn, 3: flip
        return tf.reverse(turned, tf.boolean_mask([0, 1], [kind >= 2, (kind == 1) | (kind == 2)]))

    return tf.cond(tf.equal(value, 1), lambda: image, turn)


def _fit(image: tf.Tensor, framing: Framing) -> tf.Tensor:
    """Make an image a square of the framing's size."""
    size = framing.size

    def resize(height: tf.Tensor | int, width: tf.Tensor | int, part: tf.Tensor) -> tf.Tensor:
        return tf.round(tf.image.resize(part, (height, width), antialias=True))  # weighted means, from 0 to 255

    def stretch() -> tf.Tensor:
        # Resizing takes memory for the new height times the old width, so a wide strip is made narrow first.
        height, width = tf.unstack(tf.shape(image, tf.int64)[:2])
        return tf.cond(
            width * size > MAX_PIXELS,
            lambda: resize(size, size, resize(tf.cast(height, tf.int32), size, image)),
            lambda: resize(size, size, image),
        )

    def crop() -> tf.Tensor:
        # The middle is cut out before it is resized. If a narrow strip were resized first, its longer side might become
        # too long.
        sides = tf.shape(image)[:2]
        side = tf.reduce_min(sides)
        top, left = tf.unstack((sides - side) // 2)
        return resize(size, size, image[top : top + side, left : left + side])

    def pad() -> tf.Tensor:
        sides = tf.shape(image, tf.int64)[:2]
        longer = tf.reduce_max(sides)
        # Half a pixel is rounded up. No side becomes empty.
        height, width = tf.unstack(tf.cast(tf.maximum((2 * sides * size + longer) // (2 * longer), 1), tf.int32))
        top, left = (size - height) // 2, (size - width) // 2
        background = tf.constant(framing.background, tf.float32)
        edges = [[top, size - height - top], [left, size - width - left], [0, 0]]
        return tf.pad(resize(height, width, image) - background, edges) + background

    methods: dict[str, Callable[[], tf.Tensor]] = {"stretch": stretch, "crop": crop, "pad": pad}
    fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
    return tf.ensure_shape(
        tf.cond(fits, lambda: image, lambda: tf.cast(methods[framing.resize](), tf.uint8)), (size, size, 3)
    )


def _is_any_special(encoded: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(tf.strings.regex_full_match(encoded, _SPECIAL))


def read_image(example: tf.Tensor) -> tf.Tensor:
    """Return the encoded image (scalar string) of a serialized raw example; empty if the example has no image.

    Raises:
        InvalidArgumentError: If it is not a serialized tf.Example, or its image is not one string.
    """
    feature = tf.io.FixedLenFeature([], tf.string, default_value="")
    return tf.io.parse_single_example(example, {IMAGE: feature})[IMAGE]


@tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes a second
def decode_batch(
    encoded: tf.Tensor, framing: Framing, read: Callable[[tf.Tensor], tf.Tensor] = tf.identity
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a batch of images. An image that does not decode, or is too large, does not affect the others.

    Args:
        encoded: Encoded images, string [N].
        framing: How an image becomes a square.
        read: Function that turns a row of `encoded` into an encoded image, if the rows are not images themselves.

    Returns:
        Pixels, uint8 [N, size, size, 3], and whether each image is valid, bool [N]. The pixels of an invalid image are
        all 0.
    """
    with tf.device("/CPU:0"):  # images are decoded on the CPU in any case, and not every GPU can gather uint8
        rows = tf.data.Dataset.from_tensor_slices(encoded).enumerate()

        def decode_rows(plain: bool) -> tuple[tf.Tensor, tf.Tensor]:
            decoded = rows.map(
                lambda row, image: (row, decode(read(image), framing, plain)), num_parallel_calls=_PARALLEL
            )
            # The batch gets one additional row, because it must not be empty if no image decodes. Invalid rows take
            # their pixels from it.
            past_end = tf.data.Dataset.from_tensors((count, tf.zeros((framing.size, framing.size, 3), tf.uint8)))
            batch = decoded.ignore_errors().concatenate(past_end).batch(count + 1)
            return batch.get_single_element()

        count = tf.size(encoded, tf.int64)
        index, pixels = tf.cond(
            _is_any_special(encoded), lambda: decode_rows(plain=False), lambda: decode_rows(plain=True)
        )
        last = tf.size(index) - 1
        places = tf.tensor_scatter_nd_update(tf.fill((count + 1,), last), index[:, None], tf.range(last + 1))[:-1]
        return tf.ensure_shape(tf.gather(pixels, places), (None, *pixels.shape[1:])), places < last


@tf.autograph.experimental.do_not_convert
def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Turn raw examples into pixels, for TFX's Transform.

    The Trainer applies the graph to raw examples. Transform writes no examples, because decoded examples would take
    more room than the encoded images. The graph has no analyzers and no operations with state, so Transform reads no
    images.

    Args:
        inputs: Features of a batch of raw examples.
        custom_config: `framing`, the settings of the model that `trainer.framing.FRAMING` names, as JSON, and
            `stored_size`, the side in pixels at which training images are kept before they are augmented.

    Returns:
        PIXELS, the image at `stored_size`, uint8 bytes, row by row; label and id.
    """
    framing = Framing.of(json.loads(custom_config["framing"])).at(custom_config["stored_size"])
    pixels = _decode_to_bytes(tf.reshape(inputs[IMAGE], [-1]), framing)
    return {PIXELS: pixels, LABEL: tf.reshape(inputs[LABEL], [-1]), ID: tf.reshape(inputs[ID], [-1])}


def _decode_to_bytes(encoded: tf.Tensor, framing: Framing) -> tf.Tensor:
    """Decode images to strings [N], because transformed features cannot be uint8."""
    size = framing.size**2 * 3

    def decode_all(plain: bool) -> tf.Tensor:
        def decode_row(image: tf.Tensor) -> tf.Tensor:
            # The pixels are the last field of a serialized tensor, so only its end is kept.
            return tf.strings.substr(tf.io.serialize_tensor(decode(image, framing, plain)), -size, size)

        return tf.map_fn(decode_row, encoded)

    return tf.cond(_is_any_special(encoded), lambda: decode_all(plain=False), lambda: decode_all(plain=True))

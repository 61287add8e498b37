"""Exif orientation of an encoded image, as a TensorFlow graph that can be served.

The orientation is the tag 0x0112 in the first directory of a TIFF structure (TIFF 6.0; Exif 2.32, CIPA DC-008). A JPEG
has this structure in a segment APP1 that starts with "Exif", a PNG in a chunk eXIf. Damaged metadata counts as upright,
as in image viewers.

The structure is found by a search for its name instead of a walk through the segments, because a loop in a TensorFlow
graph would take as long as decoding a small image.
"""

import tensorflow as tf

_SEARCHED_BYTES = 2**18  # bytes at the start of a JPEG that are searched; a colour profile may precede the Exif segment
_ORIENTATION, _SHORT = 0x0112, 3  # the tag, and the type of its value
_ENTRY = 12  # bytes of an entry of a directory: tag, type, number of values and value


def orientation(encoded: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
    """Return the orientation of an image, int32, from 1 (upright) to 8.

    Args:
        encoded: PNG or JPEG, scalar string.
        is_jpeg: Whether it is a JPEG, scalar bool.
    """
    start = tf.strings.substr(encoded, 0, tf.where(is_jpeg, _SEARCHED_BYTES, tf.strings.length(encoded)))
    parts = tf.strings.split(start, tf.where(is_jpeg, b"Exif\0\0", b"eXIf"))
    # Before the name, a JPEG has the marker of the segment and two bytes of its length.
    before = tf.strings.substr(tf.strings.join([b"\0\0\0\0", parts[:-1]]), -4, 2)
    is_segment = ~is_jpeg | tf.equal(before, b"\xff\xe1")

    def read() -> tf.Tensor:
        number = tf.argmax(is_segment, output_type=tf.int32)  # the first
        # A file may hold a second JPEG, for example a smaller one, whose metadata is not that of the first.
        ahead = tf.strings.reduce_join(parts[: number + 1])
        is_first = tf.size(tf.strings.split(ahead, b"\xff\xd8\xff")) <= 2
        value = _read_orientation(tf.strings.substr(parts[number + 1], 0, 2**16))
        return tf.where(is_first, value, 1)

    return tf.cond(tf.reduce_any(is_segment), read, lambda: 1)


def _read_orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Return the orientation in the first directory of a TIFF structure, or 1."""
    end = tf.strings.length(tiff)
    header = tf.strings.substr(tiff, 0, 4)
    little = tf.equal(header, b"II*\0")
    # Reads past the end return the zeros that are appended here.
    data = tf.cast(tf.io.decode_raw(tf.strings.join([tiff, bytes(8)]), tf.uint8), tf.int32)

    def words(values: tf.Tensor) -> tf.Tensor:  # int32 [..., 2 n] to [..., n], unsigned numbers of 16 bits
        first, second = values[..., ::2], values[..., 1::2]
        return tf.where(little, second * 256 + first, first * 256 + second)

    halves = words(data[4:8])
    place = tf.where(little, halves[1] * 2**16 + halves[0], halves[0] * 2**16 + halves[1])
    place = tf.where((place >= 0) & (place < end), place, end)
    count = tf.minimum(words(data[place : place + 2])[0], tf.maximum(end - place - 2, 0) // _ENTRY)
    entries = words(tf.reshape(data[place + 2 : place + 2 + count * _ENTRY], (-1, _ENTRY)))
    is_wanted = (entries[:, 0] == _ORIENTATION) & (entries[:, 1] == _SHORT)
    value = tf.reduce_max(tf.where(is_wanted, entries[:, 4], 0))
    is_known = (little | tf.equal(header, b"MM\0*")) & (value >= 1) & (value <= 8)
    return tf.where(is_known, value, 1)

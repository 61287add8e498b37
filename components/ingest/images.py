"""Which image bytes are accepted."""

import hashlib
import io
import struct
import warnings
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from trainer.examples import MAX_PIXELS

MAX_BYTES = 64 * 2**20  # of one image file

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# What Pillow raises on damaged bytes, found by changing bytes of good files and read in `Image.open`.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error)

Shape = tuple[int, int, int]
"""Height, width and channels of an image."""


class Checked(NamedTuple):
    """The shape of an accepted image, and `pixel_digest` of it."""

    shape: Shape
    digest: str


class BadImage(Exception):
    """The bytes are no usable image. The message is one of a few fixed reasons."""


def check(data: bytes) -> Checked:
    """Decode an image, to 3 channels as `tf.io.decode_image(channels=3)` will. Raises BadImage: see `opened`."""
    image = opened(data)
    return Checked((image.height, image.width, 3), pixel_digest(eight_bits(image).convert("RGB")))


def pixel_digest(pixels: Image.Image) -> str:
    """Return a hexadecimal digest of 128 bits: equal for images of one size whose RGB pixels are equal."""
    size = f"{pixels.width} {pixels.height} ".encode()
    return hashlib.blake2b(size + pixels.tobytes(), digest_size=16).hexdigest()


def opened(data: bytes) -> Image.Image:
    """Decodes an image.

    Raises BadImage unless the bytes are a whole PNG or JPEG of at most MAX_BYTES and MAX_PIXELS.

    Every colour mode of the two formats is accepted, because TensorFlow decodes every one to three channels (tried: PNG
    of 1, 2, 4, 8 and 16 bits, grey, palette, RGB, each with and without transparency, interlaced, animated (its first
    picture); JPEG grey, YCbCr, RGB, CMYK, progressive, with restart markers, with several pictures (MPO)). Alpha is
    dropped, 16 bits keep the upper 8, and neither Pillow nor TensorFlow turns a JPEG by its Exif orientation.
    Pillow alone is laxer than TensorFlow: it takes a PNG that is cut after its pixels or has a wrong checksum,
    and a JPEG without its end marker, so these are checked here. Of 20,000 files with changed or missing bytes, six
    JPEG still passed here that TensorFlow does not decode; no PNG did.
    """
    if len(data) > MAX_BYTES:
        raise BadImage(f"larger than {MAX_BYTES:,} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are refused here, and of odd Exif data
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadImage(f"more than {MAX_PIXELS:,} pixels")
            whole = _png_is_whole(data) if data.startswith(_PNG_SIGNATURE) else b"\xff\xd9" in data
            if not whole:
                raise BadImage("does not decode")
            image.load()
    except Image.DecompressionBombError:
        raise BadImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise BadImage("not a PNG or JPEG image") from None
    except _DAMAGED:
        raise BadImage("does not decode") from None
    return image


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits as its upper 8, as TensorFlow has it; Pillow would turn it white. Others as they are."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes of an image from an array source."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _png_is_whole(data: bytes) -> bool:
    """Whether every chunk up to IEND is there and has its checksum."""
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data) or zlib.crc32(memoryview(data)[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False

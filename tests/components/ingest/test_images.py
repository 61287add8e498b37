import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from components.ingest.images import MAX_BYTES, MAX_PIXELS, BadImage, check

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


ACCEPTED = {
    **{f"png {mode}": encoded(NOISE.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "png palette with transparency": encoded(NOISE.convert("P"), "PNG", transparency=3),
    "png grey with transparency": encoded(NOISE.convert("L"), "PNG", transparency=3),
    "png palette of 1 bit": encoded(NOISE.quantize(2), "PNG", bits=1),
    "png palette of 4 bits": encoded(NOISE.quantize(16), "PNG", bits=4),
    "png grey of 16 bits": png(3, 2, 16, 0, (b"\0" + b"123456") * 2),
    "png RGB of 16 bits": png(1, 2, 16, 2, (b"\0" + b"123456") * 2),
    "png RGBA of 16 bits": png(1, 2, 16, 6, (b"\0" + b"12345678") * 2),
    "png interlaced": png(1, 1, 8, 2, b"\0" + b"123", interlaced=1),
    "png animated": encoded(NOISE, "PNG", save_all=True, append_images=[NOISE.rotate(90)]),
    "png with bytes after its end": encoded(NOISE, "PNG") + b"junk",
    **{f"jpeg {mode}": encoded(NOISE.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")},
    "jpeg progressive": encoded(NOISE, "JPEG", progressive=True),
    "jpeg not subsampled": encoded(NOISE, "JPEG", subsampling=0, quality=100),
    "jpeg stored as RGB": encoded(NOISE, "JPEG", keep_rgb=True),
    "jpeg with restart markers": encoded(NOISE, "JPEG", restart_marker_rows=1),
    "jpeg of two pictures": encoded(NOISE, "MPO", save_all=True, append_images=[NOISE]),
    "jpeg with bytes after its end": encoded(NOISE, "JPEG") + b"junk",
}
PNG, JPEG = encoded(NOISE, "PNG"), encoded(NOISE, "JPEG")
WRONG_CHECKSUM = PNG[:-1] + bytes([PNG[-1] ^ 1])
REJECTED = {
    **{format: (encoded(NOISE, format), "not a PNG or JPEG image") for format in ("GIF", "BMP", "WEBP", "TIFF")},
    "empty": (b"", "not a PNG or JPEG image"),
    "text": (b"hello", "not a PNG or JPEG image"),
    "png cut in its pixels": (PNG[: len(PNG) // 2], "does not decode"),
    "png without its end": (PNG[:-12], "does not decode"),
    "png with a wrong checksum": (WRONG_CHECKSUM, "does not decode"),
    "jpeg cut": (JPEG[: len(JPEG) // 2], "does not decode"),
    "jpeg without its end": (JPEG[:-2], "does not decode"),
    "jpeg with another end": (JPEG[:-1] + b"\x00", "does not decode"),
    "header only, 4097 x 4096": (png(4097, 4096, 8, 2, b""), f"more than {MAX_PIXELS:,} pixels"),
    "header only, 60000 x 60000": (png(60_000, 60_000, 8, 2, b""), f"more than {MAX_PIXELS:,} pixels"),
    "too many bytes": (bytes(MAX_BYTES + 1), f"larger than {MAX_BYTES:,} bytes"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_tensorflow_decodes_what_is_accepted(name):
    tf = pytest.importorskip("tensorflow")
    decoded = tf.io.decode_image(ACCEPTED[name], channels=3, expand_animations=False)
    assert check(ACCEPTED[name]).shape == tuple(decoded.shape)


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.filterwarnings("error")
def test_reason(name):
    data, reason = REJECTED[name]
    with pytest.raises(BadImage) as raised:
        check(data)
    assert str(raised.value) == reason

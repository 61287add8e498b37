import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from components.data.ingest.images import MAX_BYTES, MAX_PIXELS, BadImage, as_seen, check, fix, open_image

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, interlaced: int = 0, cut: int = 0) -> bytes:
    """Return a PNG whose compressed pixels lack the last `cut` bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    packed = zlib.compress(rows)
    pixels = chunk(b"IDAT", packed[: len(packed) - cut])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


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
    "jpeg with padding before its end": encoded(NOISE, "JPEG")[:-2] + bytes(50) + b"\xff\xd9",
    "jpeg with a wrong JFIF revision": encoded(NOISE, "JPEG").replace(b"JFIF\0\1", b"JFIF\0\7"),
    "jpeg with a JPEG in its metadata": encoded(NOISE, "JPEG", exif=b"Exif\0\0" + encoded(NOISE, "JPEG")),
}
PNG, JPEG = encoded(NOISE, "PNG"), encoded(NOISE, "JPEG")
WRONG_CHECKSUM = PNG[:-1] + bytes([PNG[-1] ^ 1])
REJECTED = {
    **{
        format: (encoded(NOISE, format), f"a {name} image, not PNG or JPEG")
        for format, name in {
            "GIF": "GIF",
            "BMP": "BMP",
            "WEBP": "WebP",
            "TIFF": "TIFF",
            "AVIF": "AVIF",
            "JPEG2000": "JPEG 2000",
        }.items()
    },
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image, not PNG or JPEG"),
    "JPEG XL": (b"\xff\x0a\x12\x34", "a JPEG XL image, not PNG or JPEG"),
    "empty": (b"", "not a PNG or JPEG image"),
    "text": (b"hello", "not a PNG or JPEG image"),
    "png cut in its pixels": (PNG[: len(PNG) // 2], "cut or damaged"),
    "png without its end": (PNG[:-12], "cut or damaged"),
    "png with a wrong checksum": (WRONG_CHECKSUM, "cut or damaged"),
    "png cut in its first chunk": (PNG[:20], "cut or damaged"),
    "png whose line ends were converted": (PNG.replace(b"\r\n", b"\n", 1), "cut or damaged"),
    "png with a row less": (png(3, 2, 8, 0, b"\0123"), "cut or damaged"),
    "png with unfinished pixels": (png(3, 2, 8, 0, b"\0123" * 2, cut=1), "cut or damaged"),
    "png of a palette without one": (png(3, 2, 8, 3, b"\0123" * 2), "does not decode"),
    "png with an unknown critical chunk": (PNG[:33] + chunk(b"ABCD", b"") + PNG[33:], "does not decode"),
    "png of Apple": (PNG[:8] + chunk(b"CgBI", b"\x50\0\x20\x02") + PNG[8:], "does not decode"),
    "png with two headers": (PNG[:33] + PNG[8:], "does not decode"),
    "png, 1 x 16777216": (png(1, MAX_PIXELS, 1, 0, bytes(2 * MAX_PIXELS)), "a side of more than 1,000,000 pixels"),
    "png, 16777216 x 1": (png(MAX_PIXELS, 1, 1, 0, bytes(1 + MAX_PIXELS // 8)), "a side of more than 1,000,000 pixels"),
    "jpeg cut in its header": (JPEG[:100], "cut or damaged"),
    "jpeg cut": (JPEG[: len(JPEG) // 2], "cut or damaged"),
    "jpeg without its end": (JPEG[:-2], "cut or damaged"),
    "jpeg with another end": (JPEG[:-1] + b"\x00", "cut or damaged"),
    "header only, 4097 x 4096": (png(4097, 4096, 8, 2, b""), f"a PNG of more than {MAX_PIXELS:,} pixels"),
    "header only, 60000 x 60000": (png(60_000, 60_000, 8, 2, b""), f"a PNG of more than {MAX_PIXELS:,} pixels"),
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


def photograph(side: int = 96) -> Image.Image:
    pixels = np.random.default_rng(3).normal(size=(side, side, 3)).cumsum(0).cumsum(1)
    return Image.fromarray(((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255).astype("uint8"))


JPEG_KINDS = {
    "baseline": {},
    "optimized": {"optimize": True},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 1},
    "4:1:1": {"subsampling": "4:1:1"},
    "RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("revision", [1, 7])  # libjpeg warns about revision 7, and then about nothing else
def test_jpeg_whose_pixels_are_damaged(kind, revision):
    whole = encoded(photograph(), "JPEG", **JPEG_KINDS[kind]).replace(b"JFIF\0\1", b"JFIF\0%c" % revision)
    check(whole)
    scan = whole.index(b"\xff\xda") + 14
    for share in (0.25, 0.5, 0.75):
        at = scan + int((len(whole) - scan) * share)
        rest = len(whole) - 2 - at
        fillings = {"zeros": bytes(rest), "ones": b"\xff" * rest, "cut": b"", "hole": bytes(50) + whole[at + 50 : -2]}
        for name, filling in fillings.items():
            with pytest.raises(BadImage, match="cut or damaged"):
                check(whole[:at] + filling + whole[-2:])
                pytest.fail(f"{name} from {share}")


@pytest.mark.parametrize("blocks", [1, 2, 4, 8])
def test_jpeg_with_restart_markers_that_ends_in_zeros(blocks):
    whole = encoded(photograph(), "JPEG", restart_marker_blocks=blocks)
    check(whole)
    for at in range(whole.index(b"\xff\xda") + 14, len(whole) - 40, 5):
        with pytest.raises(BadImage, match="cut or damaged"):
            check(whole[:at] + bytes(len(whole) - 2 - at) + whole[-2:])
            pytest.fail(f"zeros from byte {at:,} of {len(whole):,}")


@pytest.mark.parametrize("length", [1, 2, 3, 10, 1000])
def test_jpeg_with_padding_before_its_end(length):
    for seed in range(6):
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 6, 3), "uint8")).resize((200, 200))
        whole = encoded(image, "JPEG", quality=90)
        check(whole[:-2] + bytes(length) + whole[-2:])


def exif(orientation: object, endian: str = "<") -> bytes:
    data = Image.Exif()
    data.endian = endian
    data[0x0112] = orientation
    return data.tobytes()


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_an_image_is_shown_upright(format):
    plain = encoded(NOISE, format)
    pixels = np.asarray(open_image(plain))
    for endian in "<>":
        for orientation in range(10):
            image = encoded(NOISE, format, exif=exif(orientation, endian))
            wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(image)))
            np.testing.assert_array_equal(as_seen(open_image(image)), wanted)
            assert check(image) == check(plain)  # which is about the pixels as they are stored
    damaged = encoded(NOISE, format, exif=b"Exif\0\0II*\0garbage")
    np.testing.assert_array_equal(as_seen(open_image(damaged)), pixels)


def test_one_colour():
    flat, drawn = np.zeros((8, 8, 4), "uint8"), np.zeros((8, 8, 4), "uint8")
    flat[2:5, :, 0] = 255  # a shape that is transparent like all around it
    drawn[2:5, :, 3] = 255  # a shape in the alpha channel alone
    assert check(encoded(Image.fromarray(flat), "PNG")).remarks == ("one_colour",)
    assert check(encoded(Image.fromarray(drawn), "PNG")).remarks == ()
    assert check(encoded(Image.new("L", (8, 8), 200), "JPEG")).remarks == ("one_colour",)
    palette = Image.new("P", (2, 1))
    palette.putpalette([5, 5, 5, 5, 5, 5])  # two entries, one colour
    palette.putpixel((1, 0), 1)
    assert check(encoded(palette, "PNG")).remarks == ("one_colour",)


def test_narrow_range():
    values = np.arange(64 * 64, dtype="uint16").reshape(64, 64)  # values of 12 bits
    for factor, remarks in {1: ("narrow_range",), 4: ("narrow_range",), 5: (), 16: ()}.items():
        assert check(encoded(Image.fromarray(values * factor), "PNG")).remarks == remarks
    colours = b"".join(b"\0" + np.array([[12, 500, row]], ">u2").tobytes() for row in range(0, 4000, 500))
    assert check(png(1, 8, 16, 2, colours)).remarks == ("narrow_range",)
    # The same picture with 8 bits is as dark, but has no upper bits to use.
    assert check(encoded(Image.fromarray((values // 64).astype("uint8")), "PNG")).remarks == ()


def test_reasons_have_fixes():
    assert "mogrify -resize" in fix(f"a PNG of more than {MAX_PIXELS:,} pixels")
    assert "mogrify -format png" in fix("a HEIC image, not PNG or JPEG")
    assert fix("not a PNG or JPEG image") is None

"""Rules that decide which bytes are accepted as an image."""

import hashlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from trainer.examples import MAX_JPEG_PIXELS, MAX_PIXELS, MAX_PROGRESSIVE_PIXELS, MAX_SCANS, MAX_SIDE

MAX_BYTES = 64 * 2**20  # largest image file that is accepted

# Reasons why an image is rejected, besides those for foreign formats. A manifest counts the images by reason.
TOO_LARGE = f"larger than {MAX_BYTES:,} bytes"
TOO_MANY_PIXELS = f"a PNG of more than {MAX_PIXELS:,} pixels"
TOO_MANY_JPEG_PIXELS = f"a JPEG of more than {MAX_JPEG_PIXELS:,} pixels"
TOO_MANY_PROGRESSIVE_PIXELS = f"a progressive JPEG of more than {MAX_PROGRESSIVE_PIXELS:,} pixels"
TOO_MANY_SCANS = f"a JPEG of more than {MAX_SCANS} scans"
TOO_LONG = f"a side of more than {MAX_SIDE:,} pixels"
NO_IMAGE = "not a PNG or JPEG image"
DAMAGED = "cut or damaged"
UNDECODABLE = "does not decode"

_PNG_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_FOREIGN = {
    rb"RIFF....WEBP": "WebP",
    rb"GIF8[79]a": "GIF",
    rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0": "BMP",  # ends with the size of one of BMP's headers
    rb"II\*\0|MM\0\*|II\+\0|MM\0\+": "TIFF",
    rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)": "HEIC",
    rb"....ftyp(avif|avis)": "AVIF",
    rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
}

_FOREIGN_END = " image, not PNG or JPEG"

# libjpeg's warnings about damaged pixels. Its other warnings are about metadata, or about parameters that it corrects.
_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file", "Inconsistent progression sequence")
_EXTRANEOUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_PALETTE = 3  # a PNG's colour type
_PNG_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}  # by colour type
_ADAM7 = (  # the passes of an interlaced PNG: first column and row, and the steps between columns and rows
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_SCAN, _PROGRESSIVE = 0xDA, (0xC2, 0xCA)  # JPEG markers

_CONVERT = "convert it, for example with `mogrify -format png FILE...`, and remove the original"
_FIXES = {
    TOO_MANY_PIXELS: "convert it to JPEG, or reduce its sides to at most 4096 pixels, for example with "
    "`mogrify -resize '4096x4096>' FILE...`",
    TOO_MANY_JPEG_PIXELS: "reduce its sides to at most 11,585 pixels, for example with "
    "`mogrify -resize '11585x11585>' FILE...`",
    TOO_MANY_PROGRESSIVE_PIXELS: "reduce its sides to at most 8,192 pixels, for example with "
    "`mogrify -resize '8192x8192>' FILE...`",
    TOO_MANY_SCANS: "encode it again, for example with `mogrify -interlace none FILE...`",
    TOO_LONG: "crop or resize it",
}

_TURNS = {  # transpositions that make an image upright, by its Exif orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Errors that Pillow raises on damaged bytes, found by changing bytes of good files and by reading `Image.open`.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error)

Shape = tuple[int, int, int]
"""Height, width and channels of an image."""


class Remark(NamedTuple):
    """Property of an accepted image that its owner should know, and how to fix it."""

    text: str
    fix: str


REMARKS = {
    "one_colour": Remark(
        "every pixel has the same colour",
        "remove such images; if a transparent picture has the colour of its background, set model.background to "
        "another colour",
    ),
    "narrow_range": Remark(
        "the values use less than a quarter of the 16-bit range, so the upper 8 bits, which the model gets, are dark",
        "multiply the values of all images by the same factor, for 12-bit values with "
        "`mogrify -evaluate multiply 16 FILE...`",
    ),
}


class CheckedImage(NamedTuple):
    """Result of the check of an accepted image."""

    shape: Shape
    digest: str  # `pixel_digest` of the decoded image
    remarks: tuple[str, ...]  # names of the REMARKS that apply


class BadImage(Exception):
    """Error for bytes that are not a usable image. The message is one of a few fixed reasons; see `fix`."""


def check(data: bytes) -> CheckedImage:
    """Decode an image, and return its shape, the digest of its pixels and its remarks.

    Raises:
        BadImage: if the image is rejected; see `open_header`.
    """
    header = open_header(data)
    shape = header.height, header.width, 3  # before a large JPEG is decoded at a smaller scale
    image = _load(header)
    seen = on_background(image) if image.has_transparency_data else to_rgb(image)
    low, high = zip(*seen.getextrema(), strict=True)
    return CheckedImage(shape, pixel_digest(to_rgb(image)), remarks(data, low, high))


def pixel_digest(pixels: Image.Image) -> str:
    """Return a hexadecimal digest of 128 bits, which is equal for images of equal size and equal RGB pixels."""
    size = f"{pixels.width} {pixels.height} ".encode()
    return hashlib.blake2b(size + pixels.tobytes(), digest_size=16).hexdigest()


def remarks(data: bytes, low: Sequence[int], high: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the REMARKS that apply to an image.

    Args:
        data: the encoded image.
        low: smallest value of red, green and blue.
        high: largest value of red, green and blue.
    """
    applies = {
        "one_colour": tuple(low) == tuple(high),
        "narrow_range": _is_png(data) and data[24:25] == b"\x10" and max(high) < 64,
    }
    return tuple(name for name in REMARKS if applies[name])


def examine(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Check an image without raising an error.

    Returns:
        The reason why the image is rejected, or an empty string; and the names of the REMARKS that apply to it.
    """
    try:
        return "", check(data).remarks
    except BadImage as error:
        return str(error), ()


def fix(reason: str) -> str | None:
    """Return how to make a rejected image acceptable, or None if there is no general way."""
    return _CONVERT if reason.endswith(_FOREIGN_END) else _FIXES.get(reason)


def notes(reason: str, remarks: Iterable[str]) -> list[str]:
    """Return a line of advice for each problem that the owner of an image can fix.

    Args:
        reason: why the image is rejected, or an empty string if it is accepted.
        remarks: names of the REMARKS that apply to the image.
    """
    advice = fix(reason)
    return [f"{reason}: {advice}"] * bool(advice) + [": ".join(REMARKS[name]) for name in remarks]


def open_image(data: bytes) -> Image.Image:
    """Decode an image that `open_header` accepts.

    Transparency and the Exif orientation are not applied; `as_seen` applies them. A 16-bit grey image keeps all
    bits; `to_rgb` reduces it to the upper 8. A JPEG of more than MAX_PIXELS is decoded at a smaller scale.

    Raises:
        BadImage: if the image is rejected.
    """
    return _load(open_header(data))


def open_header(data: bytes) -> Image.Image:
    """Open an image and check its structure, without decoding its pixels.

    Every colour mode of PNG and JPEG is accepted, because TensorFlow decodes all of them. This was tried for PNG with
    1, 2, 4, 8 and 16 bits, in grey, palette and RGB, each with and without transparency, interlaced, and animated (the
    first picture is decoded); and for JPEG in grey, YCbCr, RGB and CMYK, progressive, with restart markers, and with
    several pictures (MPO).

    Pillow accepts images that TensorFlow rejects, and fills the missing part of a JPEG with grey. So this function also
    checks the structure of a PNG, and the warnings of libjpeg about a JPEG.

    Raises:
        BadImage: unless the bytes are a complete PNG or JPEG within MAX_BYTES, MAX_PIXELS or MAX_JPEG_PIXELS, and
            MAX_SIDE, and a JPEG within MAX_PROGRESSIVE_PIXELS and MAX_SCANS.
    """
    if len(data) > MAX_BYTES:
        raise BadImage(TOO_LARGE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, which are rejected below, and about invalid Exif data
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            width, height = image.size
            if width * height > (MAX_PIXELS if _is_png(data) else MAX_JPEG_PIXELS):
                raise BadImage(_too_many_pixels(data))
            if width * height > MAX_PROGRESSIVE_PIXELS and image.info.get("progressive"):
                raise BadImage(TOO_MANY_PROGRESSIVE_PIXELS)
            if not _is_png(data) and data.count(b"\xff\xda") > MAX_SCANS:
                raise BadImage(TOO_MANY_SCANS)
            if max(width, height) > MAX_SIDE:
                raise BadImage(TOO_LONG)
            if problem := _png_problem(data) if _is_png(data) else _jpeg_problem(data):
                raise BadImage(problem)
    except Image.DecompressionBombError:
        raise BadImage(_too_many_pixels(data)) from None
    except UnidentifiedImageError:
        raise BadImage(_unidentified(data)) from None
    except _DAMAGED:
        raise BadImage(DAMAGED) from None
    return image


def _load(image: Image.Image) -> Image.Image:
    """Decode the pixels of an image that `open_header` returned."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid Exif data
            width, height = image.size
            scale = next(scale for scale in (1, 2, 4, 8) if -(-width // scale) * -(-height // scale) <= MAX_PIXELS)
            if scale > 1:
                image.draft(image.mode, (width // scale, height // scale))
            image.load()
    except _DAMAGED:
        raise BadImage(DAMAGED) from None
    return image


def _too_many_pixels(data: bytes) -> str:
    return TOO_MANY_PIXELS if _is_png(data) else TOO_MANY_JPEG_PIXELS


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert a 16-bit grey image to its upper 8 bits, as TensorFlow does. Return any other image unchanged.

    Pillow's own conversion would turn the image white.
    """
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def as_seen(image: Image.Image) -> Image.Image:
    """Return an image in RGB as a viewer shows it: upright, and on white."""
    turn = _TURNS.get(_orientation(image))
    seen = on_background(image)
    return seen if turn is None else seen.transpose(turn)


def on_background(image: Image.Image) -> Image.Image:
    """Return an image in RGB, on white if it is transparent."""
    if not image.has_transparency_data:
        return to_rgb(image)
    background = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(background, to_eight_bits(image).convert("RGBA")).convert("RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB. Transparency is dropped, which keeps the colours that it hides."""
    if image.mode == "RGB":
        return image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about transparency, which is dropped
        return to_eight_bits(image).convert("RGB")


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _is_png(data: bytes) -> bool:
    return data.startswith(_PNG_SIGNATURE)


def _unidentified(data: bytes) -> str:
    """Return the reason for rejecting bytes in which Pillow recognises neither a PNG nor a JPEG."""
    if data.startswith((_PNG_SIGNATURE[:4], _JPEG_SIGNATURE)):
        return DAMAGED
    for pattern, name in _FOREIGN.items():
        if re.match(pattern, data, re.DOTALL):
            return f"a {name}{_FOREIGN_END}"
    return NO_IMAGE


def _orientation(image: Image.Image) -> int:
    """Return the Exif orientation, or 1 if the image has none.

    `Image.getexif` would also read the orientation in XMP, which viewers ignore.
    """
    if "exif" not in image.info:
        return 1
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged Exif data
            exif.load(image.info["exif"])
            value = exif.get(ExifTags.Base.Orientation, 1)
            return value if isinstance(value, int) else 1
    except _DAMAGED:
        return 1  # viewers do not rotate a picture with damaged Exif data


def _png_problem(data: bytes) -> str | None:
    """Return the reason why libpng, which TensorFlow uses, rejects a PNG, or None if it accepts the PNG."""
    at = len(_PNG_SIGNATURE)
    chunks: list[tuple[bytes, memoryview]] = []
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data) or zlib.crc32(memoryview(data)[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return DAMAGED
        chunks.append((data[at + 4 : at + 8], memoryview(data)[at + 8 : end]))
        if chunks[-1][0] == b"IEND":
            if not _png_is_standard(chunks):
                return UNDECODABLE
            return None if _png_pixels_are_whole(chunks) else DAMAGED
        at = end + 4
    return DAMAGED


def _png_is_standard(chunks: list[tuple[bytes, memoryview]]) -> bool:
    """Return whether a PNG has the required chunks in the right order, and no critical chunk unknown to libpng."""
    kinds = [kind for kind, _ in chunks]
    critical = [kind for kind in kinds if not kind[0] & 0x20]
    header, palettes, pixels = chunks[0][1], kinds.count(b"PLTE"), kinds.count(b"IDAT")
    if not all(kind.isalpha() for kind in kinds) or kinds[0] != b"IHDR" or len(header) != 13 or not pixels:
        return False
    if critical != [b"IHDR", *[b"PLTE"] * palettes, *[b"IDAT"] * pixels, b"IEND"] or palettes > 1:
        return False
    first = kinds.index(b"IDAT")
    if kinds[first : first + pixels] != [b"IDAT"] * pixels:
        return False
    colour, compression, filtering, interlacing = header[9:]
    if colour == _PALETTE and (not palettes or len(chunks[kinds.index(b"PLTE")][1]) not in range(3, 769, 3)):
        return False
    return (compression, filtering) == (0, 0) and interlacing in (0, 1)


def _png_pixels_are_whole(chunks: list[tuple[bytes, memoryview]]) -> bool:
    """Return whether the pixels of a PNG decompress to at least the bytes that the header implies.

    Pillow accepts fewer bytes.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    bits = depth * _PNG_CHANNELS[colour]
    expected = sum(
        (1 + (columns * bits + 7) // 8) * rows
        for x, y, step_x, step_y in (_ADAM7 if interlaced else ((0, 0, 1, 1),))
        if (columns := len(range(x, width, step_x))) and (rows := len(range(y, height, step_y)))
    )
    stream = zlib.decompressobj()
    size = 0
    for kind, content in chunks:
        packed: bytes | memoryview = content if kind == b"IDAT" else b""
        while packed and not stream.eof:
            size += len(stream.decompress(packed, 2**20))  # in pieces, because the whole may be large
            packed = stream.unconsumed_tail
    return stream.eof and size >= expected


def _jpeg_problem(data: bytes) -> str | None:
    """Return DAMAGED if libjpeg warns that a JPEG's pixels are not those that were encoded.

    Pillow and TensorFlow continue after such a warning, and show the rest of the picture in grey or in wrong colours.
    """
    if b"\xff\xd9" not in data:
        return DAMAGED
    if not _libjpeg_warning(data):
        return None
    # libjpeg reports only its first warning. A warning about metadata is harmless, but may hide one about pixels.
    bare, scan, sequential = _without_metadata(data)
    warning = _libjpeg_warning(bare)
    if padding := _EXTRANEOUS.fullmatch(warning):
        extraneous, end = int(padding[1]), bare.index(b"\xff\xd9", scan)
        if not sequential or not _is_padding(bare[scan:end], extraneous):
            return DAMAGED
        # If a JPEG with restart markers was overwritten with zeros, the decoder skips most of the zeros. Its warning
        # about lost pixels then follows the warning about extraneous bytes, and appears once these bytes are removed.
        warning = _libjpeg_warning(bare[: end - extraneous] + bare[end:])
        if _EXTRANEOUS.fullmatch(warning):
            return None
    return DAMAGED if warning.startswith(_DAMAGE) else None


def _libjpeg_warning(data: bytes) -> str:
    """Return the first warning or error of libjpeg on a JPEG, or an empty string."""
    try:
        # Decoding in grey and at an eighth of the size reads every byte, and saves most of the other work.
        simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, min_height=1, min_width=1)
    except ValueError as error:
        return str(error)
    return ""


def _is_padding(scan: bytes, extraneous: int) -> bool:
    """Return whether the extraneous bytes at the end of a JPEG's scan are padding, which some cameras write.

    Pixels that were overwritten with zeros also leave extraneous bytes, because zeros decode to pixels of fewer bits.
    But then the decoder has consumed a part of the zeros, so there are more equal bytes than extraneous bytes. Up to
    three bytes may have any value, because some encoders write whole words.
    """
    constant = len(scan) - len(scan.rstrip(scan[-1:]))
    return extraneous < 4 or extraneous <= constant < extraneous + 8


def _without_metadata(data: bytes) -> tuple[bytes, int, bool]:
    """Remove the application data and comments of a JPEG.

    Returns:
        The remaining bytes, the position of the first scan, and whether the JPEG is sequential, not progressive.
    """
    bare, at, sequential = data[:2], 2, True
    while at + 4 <= len(data):
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if data[at] != 0xFF or kind == _SCAN:
            break
        if kind == 0xFF:  # any number of fill bytes may precede a marker
            at += 1
            continue
        sequential &= kind not in _PROGRESSIVE
        if not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            bare += data[at : at + 2 + length]
        at += 2 + length
    return bare + data[at:], len(bare), sequential

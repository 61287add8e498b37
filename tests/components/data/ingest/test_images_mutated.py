"""Images that `check` accepts decode in TensorFlow: tested on mutations of every kind of PNG and JPEG.

To try other mutations, run `python -m tests.components.ingest.test_images_mutated SEED COUNT`.
"""

import io
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from components.data.ingest.images import BadImage, as_seen, open_image

SIDE = 16
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # channels of a PNG, by colour type
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
KINDS = (
    b"IHDR PLTE IDAT IEND CgBI ABCD JDAT fRAc tRNS gAMA acTL fcTL fdAT iCCP sRGB eXIf iTXt zTXt hIST sPLT sCAL cICP "
    b"abCD aBCd ab1d idat bKGD"
).split()
MARKERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCC, 0xD0, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xE0, 0xE1, 0xEE, 0xFE, 0x01)
SIDES = (0, 1, 15, 17, 65_535, 1_000_000, 1_000_001, 2**24, 2**31 - 1, 2**31)

Part = tuple[bytes, bytes]  # kind and content, of a PNG's chunk or a JPEG's segment


def png_chunks(rng: np.random.Generator) -> list[Part]:
    colour = int(rng.choice([*CHANNELS]))
    depth, interlaced = int(rng.choice(DEPTHS[colour])), int(rng.random() < 0.25)
    rows = b""
    for x, y, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        size = (len(range(x, SIDE, step_x)) * CHANNELS[colour] * depth + 7) // 8
        rows += b"".join(bytes([rng.integers(5)]) + rng.bytes(size) for _ in range(y, SIDE, step_y))
    packed = zlib.compress(rows)
    middle = int(rng.integers(len(packed)))
    transparency = [(b"tRNS", data) for of, data in {0: b"\0\1", 2: bytes(6), 3: rng.bytes(2)}.items() if of == colour]
    optional = [
        (b"gAMA", struct.pack(">I", 45_455)),
        (b"sRGB", b"\0"),
        (b"pHYs", struct.pack(">IIB", 1, 1, 1)),
        (b"tEXt", b"Comment\0hello"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"hello")),
        (b"eXIf", b"II*\0\x08\0\0\0\0\0"),
        *transparency,
    ]
    return [
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, interlaced)),
        *[(b"PLTE", rng.bytes(3 * min(1 << depth, 256)))] * (colour == 3),
        *[part for part in optional if rng.random() < 0.25],
        (b"IDAT", packed[:middle]),
        (b"IDAT", packed[middle:]),
        (b"IEND", b""),
    ]


def png_bytes(chunks: list[Part]) -> bytes:
    """Return a PNG with correct lengths and checksums."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def jpeg_segments(rng: np.random.Generator) -> list[Part]:
    """Return the segments of a JPEG: marker and content. A scan's pixels are a segment without a marker."""
    image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype="uint8")).resize((SIDE, SIDE))
    options = {
        "quality": int(rng.integers(20, 95)),
        "subsampling": str(rng.choice(["4:4:4", "4:2:2", "4:2:0", "4:1:1"])),
    }
    for name, value in {"progressive": True, "optimize": True, "restart_marker_rows": 1, "comment": b"hello"}.items():
        if rng.random() < 0.3:
            options[name] = value
    out = io.BytesIO()
    image.convert(rng.choice(["RGB", "RGB", "L", "CMYK"])).save(out, "JPEG", **options)
    data, at, segments = out.getvalue(), 2, []
    while data[at + 1] != 0xD9:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        segments.append((data[at : at + 2], data[at + 4 : end]))
        if data[at + 1] == 0xDA:
            at, end = end, data.index(b"\xff", end)
            while data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
                end = data.index(b"\xff", end + 2)
            segments.append((b"", data[at:end]))
        at = end
    return [*segments, (b"\xff\xd9", b"")]


def jpeg_bytes(segments: list[Part]) -> bytes:
    def segment(kind: bytes, data: bytes) -> bytes:
        return kind + (struct.pack(">H", len(data) + 2) if kind not in (b"", b"\xff\xd9") else b"") + data

    return b"\xff\xd8" + b"".join(segment(*part) for part in segments)


def mutated(parts: list[Part], rng: np.random.Generator) -> list[Part]:
    """Drop, repeat, swap, rename, insert or alter one or two parts."""
    parts = list(parts)
    png = parts[0][0] == b"IHDR"
    for _ in range(rng.integers(1, 3)):
        at, other = rng.integers(len(parts), size=2)
        kind, data = parts[at]
        byte = int(rng.integers(len(data) + 1))
        name = KINDS[rng.integers(len(KINDS))] if png else bytes([0xFF, rng.choice(MARKERS)])
        match rng.integers(10):
            case 0:
                del parts[at]
            case 1:
                parts.insert(other, parts[at])
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts[at] = name, data
            case 4:
                parts.insert(at, (name, rng.bytes(rng.integers(30))))
            case 5:
                parts[at] = kind, data[:byte]
            case 6:
                parts[at] = kind, data + rng.bytes(rng.integers(1, 9))
            case 7:
                parts[at] = kind, data[:byte] + rng.bytes(1) + data[byte + 1 :]
            case 8:
                parts[at] = kind, data[:byte] + bytes(len(data) - byte)
            case 9 if kind == b"IHDR":
                side = struct.pack(">I", rng.choice(SIDES))
                parts[at] = kind, rng.choice([side + data[4:], data[:4] + side + data[8:]])
        if not parts:
            break
    return parts


def compared(seed: int, count: int) -> tuple[Counter, list[bytes]]:
    """Count the answers of `check` and TensorFlow, and return the images on which they disagree."""
    import tensorflow as tf

    from trainer.framing import Framing
    from trainer.preprocessing import decode_batch

    rng = np.random.default_rng(seed)
    images: list[tuple[str, bytes]] = []
    formats: dict[str, tuple[Callable, Callable]] = {
        "png": (png_chunks, png_bytes),
        "jpeg": (jpeg_segments, jpeg_bytes),
    }
    for number in range(count):
        name = ("png", "jpeg")[number % 2]
        make, encode = formats[name]
        parts = make(rng)
        images.append((name, encode(parts if number % 20 < 2 else mutated(parts, rng))))
    pixels, valid = (
        tensor.numpy() for tensor in decode_batch(tf.constant([data for _, data in images]), Framing(SIDE))
    )
    counts: Counter = Counter()
    wrong = []
    for number, (name, data) in enumerate(images):
        try:
            image = open_image(data)
        except BadImage as error:
            counts[name, str(error), bool(valid[number])] += 1
            if number % 20 < 2:
                wrong.append(data)  # not mutated
            continue
        counts[name, "accepted", bool(valid[number])] += 1
        # Pillow misreads the transparency of grey images of few bits, and shows that of a palette that libpng rejects.
        differs = False
        if image.size == (SIDE, SIDE) and name == "png" and not (image.has_transparency_data and data[24] < 8):
            differs = (
                np.abs(np.asarray(as_seen(image)).astype(int) - pixels[number]).max() > image.has_transparency_data
            )
        if not valid[number] or differs:
            wrong.append(data)
    return counts, wrong


@pytest.mark.parametrize("seed", range(2))
def test_accepted_images_decode_and_pngs_decode_to_equal_pixels(seed):
    pytest.importorskip("tensorflow")
    counts, wrong = compared(seed, 500)
    assert wrong == []
    for name in ("png", "jpeg"):
        assert counts[name, "accepted", True] > 60  # harmless mutations are among them
        assert counts[name, "cut or damaged", False] > 30
    assert counts["png", "does not decode", False] > 20


if __name__ == "__main__":
    print(*compared(int(sys.argv[1]), int(sys.argv[2])), sep="\n")

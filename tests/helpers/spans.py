"""Images, and spans with any content."""

import contextlib
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.ingest import manifest, schema, tfrecord
from components.data.ingest.manifest import Manifest, Recipe, Shard
from components.data.ingest.source import SPLITS


def encoded(pixels, kind="PNG", **options):
    """Return pixels as an encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(seed, size=32):
    """Return smooth noise that depends on the seed."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), "uint8")
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def bomb(side=30_000):
    """Return a valid PNG of side x side black pixels, in a few hundred kB."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj()
    row = bytes(1 + side // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_span(
    data: Path, number: int, records: dict[str, list[bytes]], names: tuple[str, ...] = ("cat", "dog", "fox")
) -> Path:
    """Write a span with one shard for each split, and a manifest that matches the valid records.

    Args:
        data: the data folder.
        number: the number of the span.
        records: the serialized examples, by split.
        names: the names of the classes.
    """
    folder = data / f"span-{number}"
    counts = {split: dict.fromkeys(names, 0) for split in SPLITS}
    shards = {}
    for split, examples in records.items():
        name = f"{split}/part-00000-of-00001.tfrecord"
        (folder / split).mkdir(parents=True, exist_ok=True)
        content = b"".join(map(tfrecord.frame, examples))
        (folder / name).write_bytes(content)
        shards[name] = Shard(examples=len(examples), sha256=hashlib.sha256(content).hexdigest())
        for record in examples:
            with contextlib.suppress(ValueError, IndexError):
                counts[split][names[tfrecord.parse(record).label]] += 1
    manifest.write(
        Manifest(
            kind="images",
            source="test",
            source_sha256="0" * 64,
            recipe=Recipe(),
            class_names=names,
            counts=counts,
            image_shape=None,
            shards=shards,
            rejected=(),
            tool_version="0",
        ),
        folder,
    )
    (data / schema.NAME).write_text(schema.text(schema.build(names)))
    return folder

"""Source `sample`: the 1,797 handwritten digits of scikit-learn, enlarged from 8x8 to 32x32. It needs no network."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.ingest.images import encode_png
from components.data.ingest.source import Listing, Progress, Record, RejectedRecord, Source
from components.errors import UsageError

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def open_source(source: str | None, cache: Path, progress: Progress) -> Source:
    """Open the digits, which have no splits.

    Args:
        source: must be None.
        cache: not used.
        progress: not used.

    Raises:
        UsageError: if `source` is not None.
    """
    if source is not None:
        raise UsageError(f"`sample` is bundled and takes no --source, got {source!r}: for your own images use `images`")
    from sklearn.datasets import load_digits  # takes seconds to import

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 1797 x 8 x 8, from 0 to 16
    labels = digits.target.astype(np.int64)
    listed = Listing(hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest(), len(labels))

    def records() -> Iterator[Record | RejectedRecord]:
        for row, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            enlarged = Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
            yield Record(None, CLASS_NAMES[label], f"digits:{row}".encode(), encode_png(enlarged))

    return Source("scikit-learn digits", lambda: listed, records, CLASS_NAMES)

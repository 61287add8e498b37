"""Detection of leaks, which are images that appear in two splits. Imports neither TFX nor TensorFlow."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from components.data.statistics.figures import Leak
from components.data.statistics.twins import Image, Twin

# Pairs of splits (source, target) that are compared. A leak is removed from the source.
LEAKS = (("train", "test"), ("val", "test"), ("train", "val"))

# Table with a row for each leaking image of source and of target, with its closest twin in the other split.
TWINS_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "id": pa.binary(),
        "twin_split": pa.string(),
        "twin_id": pa.binary(),
        "correlation": pa.float64(),  # of the edges; 1 for equal pixels
        "exact": pa.bool_(),  # whether the pixels are equal
        # Places of both images in the examples
        "shard": pa.string(),
        "offset": pa.int64(),
        "twin_shard": pa.string(),
        "twin_offset": pa.int64(),
    }
)


def find_twins(images: Iterable[Image], near: Iterable[Twin]) -> Iterator[dict[str, Any]]:
    """Find the closest twin of each image in every other split.

    Args:
        images: all images with the same pixels.
        near: images that are nearly equal to them.

    Yields:
        Rows of TWINS_SCHEMA.
    """
    images = list(images)
    closest: dict[str, Twin] = {}
    for twin in sorted([*(Twin(image, 1.0, exact=True) for image in images), *near], key=lambda twin: twin.rank):
        closest.setdefault(twin.image.split, twin)
    for image in images:
        for split, twin in closest.items():
            if split != image.split:
                yield {
                    "split": image.split,
                    "id": image.id,
                    "twin_split": split,
                    "twin_id": twin.image.id,
                    "correlation": twin.correlation,
                    "exact": twin.exact,
                    "shard": image.shard,
                    "offset": image.offset,
                    "twin_shard": twin.image.shard,
                    "twin_offset": twin.image.offset,
                }


def leaks_into(split: str, twin_split: str) -> bool:
    """Return true if images of `split` that have a twin in `twin_split` are removed to leave out leaks."""
    return (split, twin_split) in LEAKS


def list_leaks(counts: dict[tuple[str, str, bool], int], splits: Collection[str]) -> list[Leak]:
    """Return the number of images of a target that leak, for each pair of LEAKS.

    Args:
        counts: number of twins by split, twin_split and exact.
        splits: the splits that have usable images. Pairs of other splits have no count.
    """
    return [
        Leak(
            source=source,
            target=target,
            exact=counts.get((target, source, True), 0),
            near=counts.get((target, source, False), 0),
        )
        for source, target in LEAKS
        if source in splits and target in splits
    ]


def leave_out_mask(twins: pd.DataFrame) -> np.ndarray:
    """Return bool [N]: true for each row of TWINS_SCHEMA whose image is removed if leaks are left out of training."""
    return np.array([pair in LEAKS for pair in zip(twins.split, twins.twin_split, strict=True)], bool)

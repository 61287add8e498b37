"""Detection of leaks, which are images that appear in two splits. Imports neither TFX nor TensorFlow."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset

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
                }


def leaks_into(split: str, twin_split: str) -> bool:
    """Return true if images of `split` that have a twin in `twin_split` are removed to leave out leaks."""
    return (split, twin_split) in LEAKS


def count_leaks(twins: Path, splits: Iterable[str]) -> list[Leak]:
    """Count the images of a target that leak, for each pair of LEAKS.

    Args:
        twins: Parquet files with TWINS_SCHEMA.
        splits: the splits that have usable images. Pairs of other splits have no count.
    """
    table, field, splits = pa.dataset.dataset(twins), pa.dataset.field, set(splits)
    leaks = []
    for source, target in LEAKS:
        if {source, target} <= splits:
            both = (field("split") == target) & (field("twin_split") == source)
            exact, near = (table.count_rows(filter=both & is_kind) for is_kind in (field("exact"), ~field("exact")))
            leaks.append(Leak(source=source, target=target, exact=exact, near=near))
    return leaks


def leave_out_mask(twins: pd.DataFrame) -> np.ndarray:
    """Return bool [N]: true for each row of TWINS_SCHEMA whose image is removed if leaks are left out of training."""
    return np.array([pair in LEAKS for pair in zip(twins.split, twins.twin_split, strict=True)], bool)

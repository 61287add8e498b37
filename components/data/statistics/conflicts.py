"""Detection of equal or nearly equal images that have different labels. Imports neither TFX nor TensorFlow."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa

from components.data.statistics.twins import Image, Twin

# Two pictures count as nearly equal from this correlation of their edges on. The bound is far above that of leaks,
# because a false alarm would stop a good data set. The largest correlation between images of different classes is 0.84
# for handwritten digits and 0.57 for CIFAR-10. A picture that was made darker, grey or larger, or that was compressed
# again with quality 75, keeps a correlation above 0.95.
CORRELATION = 0.90

# Table with a row for each image that equals or nearly equals an image with another label, in the same split or
# another, and its closest twin of another label.
CONFLICTS_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "id": pa.binary(),
        "label": pa.int64(),
        "twin_split": pa.string(),
        "twin_id": pa.binary(),
        "twin_label": pa.int64(),
        "correlation": pa.float64(),  # of the edges; 1 for equal pixels
        "exact": pa.bool_(),  # whether the pixels are equal
        # Places of both images in the examples
        "shard": pa.string(),
        "offset": pa.int64(),
        "twin_shard": pa.string(),
        "twin_offset": pa.int64(),
    }
)


def find_conflicts(images: Iterable[Image], leaking: Collection[str], near: Iterable[Twin]) -> Iterator[dict[str, Any]]:
    """Find the closest twin with another label of each image.

    Twins that stay in training are preferred, so that the conflict remains visible if leaks are left out.

    Args:
        images: all images with the same pixels.
        leaking: the splits in which these images leak.
        near: images that are nearly equal to them, with a correlation of at least CORRELATION.

    Yields:
        Rows of CONFLICTS_SCHEMA.
    """
    images = list(images)
    exact = [Twin(image, 1.0, exact=True, leaks=image.split in leaking) for image in images]
    closest: dict[int, Twin] = {}
    for twin in sorted([*exact, *near], key=lambda twin: (twin.leaks, twin.rank)):
        closest.setdefault(twin.image.label, twin)
    best_two = list(closest.values())[:2]
    for image in images:
        for twin in best_two:
            if twin.image.label != image.label:
                yield {
                    "split": image.split,
                    "id": image.id,
                    "label": image.label,
                    "twin_split": twin.image.split,
                    "twin_id": twin.image.id,
                    "twin_label": twin.image.label,
                    "correlation": twin.correlation,
                    "exact": twin.exact,
                    "shard": image.shard,
                    "offset": image.offset,
                    "twin_shard": twin.image.shard,
                    "twin_offset": twin.image.offset,
                }
                break

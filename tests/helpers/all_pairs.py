"""Search for equal and nearly equal images that compares all pairs, as a reference."""

import numpy as np
import pandas as pd

from components.data.statistics import conflicts
from components.data.statistics.candidates import DISTANCE
from components.data.statistics.leaks import LEAKS
from components.data.statistics.perceptual import CORRELATION, edge_correlation, stack_thumbnails


def twins(images: pd.DataFrame) -> dict[tuple[str, bytes, str], tuple[bool, float]]:
    """Return split, id and other split of each leaking image, with exactness and correlation of its closest twin."""
    good, correlation = _correlations(images)
    splits, ids, digests = (good[name].tolist() for name in ("split", "id", "digest"))
    found: dict[tuple[str, bytes, str], tuple[bool, float]] = {}
    for i, j in np.argwhere(correlation >= CORRELATION).tolist():
        pair = splits[i], splits[j]
        if pair in LEAKS or pair[::-1] in LEAKS:
            key = splits[i], ids[i], splits[j]
            found[key] = max(found.get(key, (False, 0.0)), (digests[i] == digests[j], float(correlation[i, j])))
    return found


def contradictions(images: pd.DataFrame) -> set[tuple[str, bytes]]:
    """Return split and id of each image that equals or nearly equals an image with another label."""
    good, correlation = _correlations(images)
    differ = good.label.to_numpy()[:, None] != good.label.to_numpy()
    rows = (differ & (correlation >= conflicts.CORRELATION)).any(axis=1)
    return set(good[rows][["split", "id"]].itertuples(index=False, name=None))


def _correlations(images: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the usable images and the correlations of their edges: 1 for equal pixels, 0 for different hashes."""
    good = images[images.reason == ""].reset_index(drop=True)
    hashes, thumbnails = good.hash.to_numpy(np.uint64), stack_thumbnails(good.thumbnail)
    correlation = np.stack([edge_correlation(thumbnails, one[None]) for one in thumbnails])
    correlation[np.bitwise_count(hashes[:, None] ^ hashes) > DISTANCE] = 0
    correlation[good.digest.to_numpy()[:, None] == good.digest.to_numpy()] = 1
    return good, correlation

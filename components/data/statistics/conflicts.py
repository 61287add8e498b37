"""Detection of equal or nearly equal images with contradicting labels. Imports neither TFX nor TensorFlow."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from components.data.statistics.leaks import gives_way
from components.data.statistics.perceptual import similar_pairs

# Two pictures count as the same from this correlation of their edges. It is far above that of leaks, because a false
# alarm here stops a good data set: handwritten digits of different classes reach 0.84, CIFAR-10's different classes
# 0.57. A picture that was made darker, grey or larger, or compressed again with quality 75, stays above 0.95.
CORRELATION = 0.90

_COLUMNS = ["split", "id", "label", "twin_split", "twin_id", "twin_label", "correlation", "exact"]


def find_conflicts(images: pd.DataFrame, twins: pd.DataFrame) -> pd.DataFrame:
    """Find the images whose picture has another label elsewhere, within one split or across splits.

    Args:
        images: the columns split, id, label, reason, digest, hash and thumbnail.
        twins: the result of `components.data.statistics.leaks.find_leaks` for the same images.

    Returns:
        A row for each such image with the closest of its contradicting twins: split, id, label, twin_split, twin_id,
        twin_label, correlation (1 for equal pixels) and exact. A twin that stays in training is preferred over one that
        gives way to a leak, so that a row remains valid if leaks are left out.
    """
    good = images[images.reason == ""]
    leaking = pd.MultiIndex.from_frame(twins[gives_way(twins)][["split", "id"]])
    good = good.assign(leaks=pd.MultiIndex.from_frame(good[["split", "id"]]).isin(leaking))
    good = good.sort_values("leaks", kind="stable")
    pictures = good.drop_duplicates(["digest", "label"])
    pairs = _both_ways(_together([_exact(pictures), *_near(pictures)]))
    best = pairs.sort_values(["twin_leaks", "exact", "correlation"], ascending=[True, False, False])
    best = best.drop_duplicates(["digest", "label"])
    return good.merge(best, on=["digest", "label"])[_COLUMNS]


def _exact(pictures: pd.DataFrame) -> pd.DataFrame:
    """Pair the first picture of each digest with every other label of that digest."""
    shared = pictures[pictures.digest.duplicated(keep=False)]
    first = shared.drop_duplicates("digest")
    rest = shared[~shared.index.isin(first.index)]
    partners = first.set_index("digest").loc[rest.digest]
    return _pairs(partners.reset_index(), rest, 1.0, exact=True)


def _near(pictures: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Pair nearly equal pictures that have different labels."""
    by_label = pictures.sort_values("label", kind="stable").reset_index(drop=True)
    labels = by_label.label.to_numpy()
    for label in np.unique(labels):
        start, after = np.searchsorted(labels, [label, label + 1])
        for ours, theirs, correlation in similar_pairs(by_label[start:after], by_label[after:], CORRELATION):
            yield _pairs(ours, theirs, correlation, exact=False)


def _pairs(first: pd.DataFrame, second: pd.DataFrame, correlation: np.ndarray | float, exact: bool) -> pd.DataFrame:
    columns = ["digest", "split", "id", "label", "leaks"]
    sides = [side[columns].reset_index(drop=True) for side in (first, second)]
    both = pd.concat([sides[0], sides[1].add_prefix("twin_")], axis=1)
    return both.assign(correlation=correlation, exact=exact)


def _together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables of the same columns. Empty ones are left out, because pandas would let them change dtypes."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _both_ways(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return each pair in both directions, without the split and id of its first picture."""
    swapped = {f"twin_{name}": name for name in ("digest", "split", "id", "label", "leaks")}
    other_way = pairs.rename(columns=swapped | {name: twin for twin, name in swapped.items()})
    return pd.concat([pairs, other_way[pairs.columns]], ignore_index=True).drop(columns=["split", "id", "leaks"])

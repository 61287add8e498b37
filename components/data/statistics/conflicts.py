"""Detection of equal or nearly equal images that have different labels. Imports neither TFX nor TensorFlow."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from components.data.statistics.leaks import concatenate, leave_out_mask
from components.data.statistics.perceptual import similar_pairs

# Two pictures count as nearly equal from this correlation of their edges on. The bound is far above that of leaks,
# because a false alarm would stop a good data set. The largest correlation between images of different classes is 0.84
# for handwritten digits and 0.57 for CIFAR-10. A picture that was made darker, grey or larger, or that was compressed
# again with quality 75, keeps a correlation above 0.95.
CORRELATION = 0.90

_COLUMNS = ["split", "id", "label", "twin_split", "twin_id", "twin_label", "correlation", "exact"]


def find_conflicts(images: pd.DataFrame, twins: pd.DataFrame) -> pd.DataFrame:
    """Find the images that equal or nearly equal an image with another label, in the same split or another.

    Args:
        images: a table with the columns split, id, label, reason, digest, hash and thumbnail.
        twins: the table that `components.data.statistics.leaks.find_leaks` returned for the same images.

    Returns:
        A row for each such image with its closest twin of another label. The columns are split, id, label, twin_split,
        twin_id, twin_label, correlation (1 for equal pixels) and exact (whether the pixels are equal). Twins that stay
        in training are preferred, so that the conflict remains visible if leaks are left out.
    """
    good = images[images.reason == ""]
    leaking = pd.MultiIndex.from_frame(twins[leave_out_mask(twins)][["split", "id"]])
    good = good.assign(leaks=pd.MultiIndex.from_frame(good[["split", "id"]]).isin(leaking))
    good = good.sort_values("leaks", kind="stable")
    pictures = good.drop_duplicates(["digest", "label"])
    pairs = _in_both_directions(concatenate([_exact(pictures), *_near(pictures)]))
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


def _in_both_directions(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return each pair in both directions, without the split, id and leaks of its first picture."""
    swapped = {f"twin_{name}": name for name in ("digest", "split", "id", "label", "leaks")}
    other_way = pairs.rename(columns=swapped | {name: twin for twin, name in swapped.items()})
    return pd.concat([pairs, other_way[pairs.columns]], ignore_index=True).drop(columns=["split", "id", "leaks"])

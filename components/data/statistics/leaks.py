"""Detection of leaks, which are images that appear in two splits. Imports neither TFX nor TensorFlow."""

import numpy as np
import pandas as pd

from components.data.statistics.figures import Leak
from components.data.statistics.perceptual import CORRELATION, similar_pairs

# Pairs of splits (source, target) that are compared. A leak is removed from the source.
LEAKS = (("train", "test"), ("val", "test"), ("train", "val"))

_TWIN = ["split", "id", "twin_split", "twin_id", "correlation", "exact"]


def find_leaks(images: pd.DataFrame) -> tuple[pd.DataFrame, list[Leak]]:
    """Find the images that appear in two splits, with equal or nearly equal pixels.

    Args:
        images: a table with the columns split, id, reason, digest, hash and thumbnail.

    Returns:
        A table of the leaking images, and their numbers for each pair of LEAKS. The table has a row for each leaking
        image of source and of target, with its closest twin in the other split. The columns are split, id, twin_split,
        twin_id, correlation (1 for equal pixels) and exact (whether the pixels are equal).
    """
    good = images[images.reason == ""]
    one_each = {str(split): rows.drop_duplicates("digest") for split, rows in good.groupby("split")}
    tables, leaks = [pd.DataFrame(columns=_TWIN).astype({"exact": bool})], []
    for source, target in LEAKS:
        if source in one_each and target in one_each:
            pairs = _twins(one_each[source], one_each[target])
            in_target = _with_closest_twin(good[good.split == target], pairs, "target", "source")
            in_source = _with_closest_twin(good[good.split == source], pairs, "source", "target")
            tables += [in_target.assign(twin_split=source)[_TWIN], in_source.assign(twin_split=target)[_TWIN]]
            exact = int(in_target.exact.sum())
            leaks.append(Leak(source=source, target=target, exact=exact, near=len(in_target) - exact))
    return concatenate(tables), leaks


def concatenate(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables with the same columns. Empty tables are left out, because pandas would change dtypes."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _with_closest_twin(images: pd.DataFrame, pairs: pd.DataFrame, side: str, other: str) -> pd.DataFrame:
    """Return every image that shows a picture of the given side of the pairs, with its closest twin."""
    best = pairs.sort_values(["exact", "correlation"], ascending=False).drop_duplicates(f"{side}_digest")
    best = best.rename(columns={f"{side}_digest": "digest", f"{other}_id": "twin_id"})
    return images[["split", "id", "digest"]].merge(best, on="digest")


def _twins(source: pd.DataFrame, target: pd.DataFrame) -> pd.DataFrame:
    """Pair the equal and nearly equal images of two splits, which list equal images of one split only once.

    The columns of the result are source_digest, source_id, target_digest, target_id, correlation and exact.
    """
    equal = source.merge(target, on="digest", suffixes=("_source", "_target"))
    exact = pd.DataFrame(
        {
            "source_digest": equal.digest,
            "source_id": equal.id_source,
            "target_digest": equal.digest,
            "target_id": equal.id_target,
            "correlation": 1.0,
            "exact": True,
        }
    )
    tables = [exact]
    for ours, theirs, correlation in similar_pairs(target, source, CORRELATION):
        near = {
            "source_digest": theirs.digest.to_numpy(),
            "source_id": theirs.id.to_numpy(),
            "target_digest": ours.digest.to_numpy(),
            "target_id": ours.id.to_numpy(),
            "correlation": correlation,
            "exact": False,
        }
        tables.append(pd.DataFrame(near))
    return concatenate(tables)


def leave_out_mask(twins: pd.DataFrame) -> np.ndarray:
    """Return bool [N]: true for each row of `find_leaks` whose image is removed if leaks are left out of training."""
    return np.array([pair in LEAKS for pair in zip(twins.split, twins.twin_split, strict=True)], bool)

"""Detection of images that appear in two splits. Imports neither TFX nor TensorFlow."""

import numpy as np
import pandas as pd

from components.data.statistics.figures import Leak
from components.data.statistics.perceptual import CORRELATION, similar_pairs

# Where an image may leak from and into; the split on the left gives way.
LEAKS = (("train", "test"), ("val", "test"), ("train", "val"))

_TWIN = ["split", "id", "twin_split", "twin_id", "correlation", "exact"]


def find_leaks(images: pd.DataFrame) -> tuple[pd.DataFrame, list[Leak]]:
    """Which images stand in two splits, exactly or nearly so.

    images: the columns split, id, reason, digest, hash and thumbnail.
    Gives the twins (columns split, id, twin_split, twin_id, correlation (1 for equal pixels), exact), a row for each
    image that leaks either way, and how many there are.
    """
    good = images[images.reason == ""]
    one_each = {str(split): rows.drop_duplicates("digest") for split, rows in good.groupby("split")}
    found, leaks = [pd.DataFrame(columns=_TWIN).astype({"exact": bool})], []
    for source, target in LEAKS:
        if source in one_each and target in one_each:
            pairs = _twins(one_each[source], one_each[target])
            leaking = _showing(good[good.split == target], pairs, "target", "source").assign(twin_split=source)
            giving_way = _showing(good[good.split == source], pairs, "source", "target").assign(twin_split=target)
            found += [leaking[_TWIN], giving_way[_TWIN]]
            exact = int(leaking.exact.sum())
            leaks.append(Leak(source=source, target=target, exact=exact, near=len(leaking) - exact))
    filled = [table for table in found if len(table)] or found[:1]
    return pd.concat(filled, ignore_index=True), leaks


def _showing(images: pd.DataFrame, pairs: pd.DataFrame, side: str, other: str) -> pd.DataFrame:
    """Every image that shows a picture of `side`, with the best of its twins on the other side."""
    best = pairs.sort_values(["exact", "correlation"], ascending=False).drop_duplicates(f"{side}_digest")
    best = best.rename(columns={f"{side}_digest": "digest", f"{other}_id": "twin_id"})
    return images[["split", "id", "digest"]].merge(best, on="digest")


def _twins(source: pd.DataFrame, target: pd.DataFrame) -> pd.DataFrame:
    """Pairs of pictures, each picture given once: source_digest, source_id, target_digest, target_id, and how close."""
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
    found = [exact]
    for ours, theirs, correlation in similar_pairs(target, source, CORRELATION):
        near = {
            "source_digest": theirs.digest.to_numpy(),
            "source_id": theirs.id.to_numpy(),
            "target_digest": ours.digest.to_numpy(),
            "target_id": ours.id.to_numpy(),
            "correlation": correlation,
            "exact": False,
        }
        found.append(pd.DataFrame(near))
    return pd.concat([table for table in found if len(table)] or found[:1], ignore_index=True)


def gives_way(twins: pd.DataFrame) -> np.ndarray:
    """bool [N]: which of the twins is left out of training where none is to stand in two splits."""
    return np.array([pair in LEAKS for pair in zip(twins.split, twins.twin_split, strict=True)], bool)

"""Images whose label is probably wrong, from predictions and twins. Imports neither TFX nor TensorFlow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from trainer.settings import Group

# Files of a LabelSuspects artifact.
FIGURES = "figures.json"  # `LabelFigures`
SUSPECTS = "suspects.parquet"  # the rows of `SUSPECTS_SCHEMA`
PAGE = "suspects.html"  # the page for a person

# Reasons for which an image is a suspect. If several apply, the first is given.
TWIN = "twin"  # it equals or nearly equals an image with another label
PREDICTION = "prediction"  # confident learning finds that it belongs to another class
OUTLIER = "outlier"  # it looks like no other image
REASONS = (TWIN, PREDICTION, OUTLIER)

FEWEST = 10  # different images of a class, below which a ViT cannot learn it, so that all its labels look wrong

# Table with a row for each suspect, the most suspicious first.
SUSPECTS_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "span": pa.int64(),  # the span that the image is from
        "id": pa.binary(),
        "label": pa.string(),  # class that the image is labelled with
        "suggested": pa.string(),  # class that it may belong to; empty for an outlier
        "score": pa.float64(),  # probability that the ViT gives to the label; the lower, the more suspicious
        "reason": pa.string(),  # one of REASONS
        # Place of the image in the examples
        "shard": pa.string(),
        "offset": pa.int64(),
        # The twin; null for other reasons
        "twin_split": pa.string(),
        "twin_id": pa.binary(),
        "twin_shard": pa.string(),
        "twin_offset": pa.int64(),
    }
)
_PLACE = ["split", "shard", "offset"]
_TWIN = ["twin_split", "twin_id", "twin_shard", "twin_offset"]


class LabelFigures(Group):
    """Figures of a label check."""

    folds: int
    epochs: int
    problem: str = ""  # why the labels could not be checked; the other figures are then 0
    images: int = 0  # checked images of all splits
    accuracy: float = 0.0  # share of the images whose label the ViT predicts that was not trained on them
    wrong: float = 0.0  # estimated share of wrong labels among the images of the classes that are not too small
    too_small: tuple[str, ...] = ()  # classes that the estimate leaves out, see `find_large_classes`
    suspects: dict[str, int] = Field({})  # number of suspects by reason


def read_figures(folder: Path) -> LabelFigures:
    """Read the figures in the folder of a LabelSuspects artifact."""
    return LabelFigures.model_validate_json((folder / FIGURES).read_text("utf-8"))


def read_suspects(folder: Path) -> pd.DataFrame:
    """Read the table of suspects in the folder of a LabelSuspects artifact."""
    return pd.read_parquet(folder / SUSPECTS)


def assign_folds(images: pd.DataFrame, folds: int) -> np.ndarray:
    """Divide the images of each class evenly into folds.

    Equal images of a class are in one fold. Otherwise a ViT would know the label of an image from its copy, even if the
    label is wrong.

    Args:
        images: a row for each image, with `label` and `digest`, the digest of its pixels.
        folds: number of folds.

    Returns:
        The fold of each image, from 0, int64 [N].
    """
    numbers = images.groupby("label").digest.transform(lambda digests: pd.factorize(digests, sort=True)[0])
    assigned: np.ndarray = numbers.to_numpy(np.int64) % folds
    return assigned


def find_large_classes(images: pd.DataFrame, folds: int) -> np.ndarray:
    """Find the classes that have enough different images for an estimate of their wrong labels.

    They have at least FEWEST, and at least two for each fold.

    Args:
        images: a row for each image, with `label` and `digest`, the digest of its pixels.
        folds: number of folds.

    Returns:
        Indices of the classes in ascending order, int64 [n].
    """
    different = images.groupby("label").digest.nunique()
    large: np.ndarray = different.index[different >= max(FEWEST, 2 * folds)].to_numpy(np.int64)
    return large


def find_far(distances: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Find images that are far from all others.

    The logarithm of their distance is more than three interquartile ranges above the third quartile. Distances
    themselves are skewed, so that many would be beyond this bound.

    Args:
        distances: distance of each image to its nearest neighbours, float [N].
        folds: fold of each image, int [N]. Distances of different folds are from different models.

    Returns:
        bool [N].
    """
    logarithms = pd.Series(np.log(np.maximum(distances, 1e-9)))
    by_fold = logarithms.groupby(folds)
    first, third = (by_fold.transform("quantile", share) for share in (0.25, 0.75))
    far: np.ndarray = (logarithms > third + 3 * (third - first)).to_numpy()
    return far


def find_suspects(
    images: pd.DataFrame,
    probabilities: np.ndarray,
    classes: np.ndarray,
    is_far: np.ndarray,
    conflicts: pd.DataFrame,
    names: Sequence[str],
) -> pd.DataFrame:
    """Rank the images whose label is probably wrong by score, the most suspicious first.

    One label of two twins must be wrong. The score decides which of them comes first.

    Args:
        images: a row for each image, with `split`, `span`, `id`, `label`, `shard` and `offset`.
        probabilities: predictions by models that were not trained on the image, float [N, classes].
        classes: result of `find_large_classes`. Images of other classes are no suspects by prediction.
        is_far: result of `find_far`, bool [N].
        conflicts: rows of `components.data.statistics.conflicts.CONFLICTS_SCHEMA`.
        names: class names in index order.

    Returns:
        Rows of SUSPECTS_SCHEMA.
    """
    from cleanlab.filter import find_label_issues  # imports slowly, and readers of the table do not need it
    from cleanlab.rank import get_label_quality_scores

    labels = images.label.to_numpy()
    found = images[[*_PLACE, "span", "id"]].merge(conflicts[[*_PLACE, *_TWIN, "twin_label"]], "left", _PLACE)
    has_twin = found.twin_id.notna().to_numpy()
    is_doubtful = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    is_doubtful &= np.isin(labels, classes)
    found["reason"] = np.select([has_twin, is_doubtful, is_far], REASONS, "")
    found["score"] = get_label_quality_scores(labels, probabilities)
    predicted = np.where(has_twin, found.twin_label.fillna(0), probabilities.argmax(axis=1)).astype(int)
    class_names = np.array(names, object)
    found["label"] = class_names[labels]
    found["suggested"] = np.where(found.reason == OUTLIER, "", class_names[predicted])
    found = found[found.reason != ""]
    ranked = found.sort_values(["score", "split", "id"])[SUSPECTS_SCHEMA.names]
    return ranked.astype({"twin_offset": "Int64"}).reset_index(drop=True)


def estimate_wrong(labels: np.ndarray, probabilities: np.ndarray, classes: np.ndarray) -> float:
    """Estimate the share of wrong labels by confident learning (Northcutt et al., 2021).

    Args:
        labels: label of each image, int [N].
        probabilities: predictions by models that were not trained on the image, float [N, all classes].
        classes: classes whose images are considered, in ascending order, int [n]. Confident learning compares a
            prediction with the usual one for a class, and has no usual one for a class that was not learned.
    """
    from cleanlab.count import num_label_issues

    considered = np.isin(labels, classes)
    among = np.maximum(probabilities[considered][:, classes], 1e-9)
    among /= among.sum(axis=1, keepdims=True)
    return float(num_label_issues(np.searchsorted(classes, labels[considered]), among)) / int(considered.sum())

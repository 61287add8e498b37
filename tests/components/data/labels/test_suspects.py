"""Tests of the ranking of images whose label is probably wrong."""

import numpy as np
import pandas as pd

from components.data.labels.suspects import (
    OUTLIER,
    PREDICTION,
    SUSPECTS_SCHEMA,
    TWIN,
    assign_folds,
    estimate_wrong,
    find_far,
    find_large_classes,
    find_suspects,
)
from components.data.statistics.conflicts import CONFLICTS_SCHEMA

NAMES = ("cat", "dog", "fox")


def images(labels):
    return pd.DataFrame(
        {
            "split": "train",
            "span": 1,
            "id": [b"%03d.png" % number for number in range(len(labels))],
            "label": labels,
            "shard": "part-0",
            "offset": np.arange(len(labels)) * 100,
        }
    )


def confident(labels):
    """Return predictions that give 0.8 to the true class."""
    return np.full((len(labels), 3), 0.1) + 0.7 * np.eye(3)[labels]


def conflict(one, other):
    """Return the rows of a pair of equal images with other labels."""
    rows = []
    for image, twin in ((one, other), (other, one)):
        rows.append(
            {
                **image[["split", "id", "label", "shard", "offset"]],
                **{f"twin_{name}": twin[name] for name in ("split", "id", "label", "shard", "offset")},
                "correlation": 1.0,
                "exact": True,
            }
        )
    return pd.DataFrame(rows)


ALL = np.arange(3)  # classes
NO_CONFLICTS = CONFLICTS_SCHEMA.empty_table().to_pandas()


def test_wrong_labels_are_suspects_with_the_predicted_class():
    true = np.arange(300) % 3
    labels = true.copy()
    wrong = [5, 70, 200]
    labels[wrong] = (true[wrong] + 1) % 3
    table = find_suspects(images(labels), confident(true), ALL, np.zeros(300, bool), NO_CONFLICTS, NAMES)
    assert list(table.columns) == SUSPECTS_SCHEMA.names
    assert sorted(table.id) == [b"005.png", b"070.png", b"200.png"]
    assert {*table.reason} == {PREDICTION}
    by_id = table.set_index("id")
    for number in wrong:
        row = by_id.loc[b"%03d.png" % number]
        assert (row.label, row.suggested) == (NAMES[labels[number]], NAMES[true[number]])
        assert np.isclose(row.score, 0.1)
    assert np.isclose(estimate_wrong(labels, confident(true), np.arange(3)), 0.01)


def test_suspects_are_ranked_by_score_and_listed_once_with_their_first_reason():
    true = np.arange(300) % 3
    labels, probabilities = true.copy(), confident(true)
    for number, surest in ((9, 0.85), (12, 0.95)):
        labels[number] = (true[number] + 1) % 3
        probabilities[number] = (1 - surest) / 2
        probabilities[number, true[number]] = surest
    is_far = np.zeros(300, bool)
    is_far[[0, 9, 30]] = True
    table = images(labels)
    found = find_suspects(table, probabilities, ALL, is_far, conflict(table.loc[0], table.loc[1]), NAMES)
    assert list(found.id) == [b"012.png", b"009.png", b"000.png", b"001.png", b"030.png"]
    assert list(found.reason) == [PREDICTION, PREDICTION, TWIN, TWIN, OUTLIER]
    assert list(found.suggested) == ["cat", "cat", "dog", "cat", ""]
    assert list(found.twin_id[2:4]) == [b"001.png", b"000.png"] and found.twin_id[[0, 1, 4]].isna().all()


def test_a_prediction_makes_no_image_of_a_class_that_was_not_learned_a_suspect():
    labels = np.arange(300) % 3
    true = labels.copy()
    true[[5, 6]] = (labels[[5, 6]] + 1) % 3
    is_far = np.zeros(300, bool)
    is_far[8] = True
    found = find_suspects(images(labels), confident(true), np.array([0, 1]), is_far, NO_CONFLICTS, NAMES)
    assert [*zip(found.id, found.reason, strict=True)] == [(b"006.png", PREDICTION), (b"008.png", OUTLIER)]


def test_a_class_without_images_does_not_matter():
    labels = np.arange(200) % 2
    labels[3] = 0
    found = find_suspects(images(labels), confident(np.arange(200) % 2), ALL, np.zeros(200, bool), NO_CONFLICTS, NAMES)
    assert list(found.id) == [b"003.png"]


def test_folds_divide_each_class_evenly_and_keep_equal_images_together():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": rng.integers(0, 3, 300), "digest": [rng.bytes(16) for _ in range(300)]})
    table = pd.concat([table, table[:40]], ignore_index=True)
    folds = assign_folds(table, 3)
    assert (folds[:40] == folds[300:]).all()
    counts = pd.crosstab(table.label[:300], folds[:300])
    assert counts.shape == (3, 3) and (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    order = rng.permutation(len(table))
    assert (assign_folds(table.iloc[order].reset_index(drop=True), 3) == folds[order]).all()


def test_far_images_are_far_compared_with_those_of_their_fold():
    distances, folds = np.tile(np.linspace(0.1, 0.2, 50), 2), np.repeat([0, 1], 50)
    distances[50:] *= 10
    distances[7] = 0.9  # far in the first fold, near in the second
    assert list(np.flatnonzero(find_far(distances, folds))) == [7]


def test_a_class_that_is_too_small_to_be_learned_does_not_change_the_estimate():
    labels = np.arange(300) % 2
    labels[[17, 88]] = 2
    # A ViT that was trained on one image of a class predicts others.
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 0.05], 300)
    own = np.arange(300) % 2
    probabilities[np.arange(300), own] += 4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    table = images(labels).assign(digest=[f"{number}" for number in range(300)])
    large = find_large_classes(table, folds=3)
    assert list(large) == [0, 1]
    assert estimate_wrong(labels, probabilities, np.arange(3)) > 0 == estimate_wrong(labels, probabilities, large)


def test_copies_do_not_make_a_class_larger():
    table = images(np.arange(60) % 2).assign(digest=[f"{number % 40}" for number in range(60)])
    assert list(find_large_classes(table, folds=3)) == [0, 1]  # 20 different images of each
    assert list(find_large_classes(table, folds=11)) == []

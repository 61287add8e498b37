import itertools
from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.stats import beta

from components.model.evaluator.measures import Sums, compare, compare_shared

NAMES = ["cat", "dog", "fox", "owl"]


def sure(answers, confidence=0.91):
    """Return probabilities for these answers, with the rest spread evenly over the other classes."""
    rest = (1 - confidence) / (len(NAMES) - 1)
    return np.where(np.eye(len(NAMES))[answers] > 0, confidence, rest).astype("float32")


def test_figures_of_known_answers():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    found = Sums.of(labels, sure([0, 0, 0, 1, 1, 1, 2, 0])).figures(NAMES, 0.95, {"brightness low": (4, 8)})
    assert (found.examples, found.accuracy) == (8, 0.75)
    assert found.class_accuracy == {"cat": 0.75, "dog": 1.0, "fox": 0.5}  # no owl in the test set
    assert found.class_precision == {"cat": 0.75, "dog": pytest.approx(2 / 3), "fox": 1.0}
    assert found.confusion == [[3, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert found.log_loss == pytest.approx(-(6 * np.log(0.91) + 2 * np.log(0.03)) / 8, rel=1e-5)
    assert found.looks_accuracy == {"brightness low": 0.5}
    assert found.looks_accuracy_interval["brightness low"] == pytest.approx((0.157, 0.843), abs=1e-3)
    low, high = found.accuracy_interval  # Clopper and Pearson's, by its definition
    assert (low, high) == pytest.approx((beta.ppf(0.025, 6, 3), beta.ppf(0.975, 7, 2)))
    assert found.class_accuracy_interval["dog"][1] == 1.0


def test_top_3_counts_the_three_likeliest():
    probabilities = np.array([[0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]], "float32")
    assert Sums.of(np.array([2, 3]), probabilities).figures(NAMES, 0.95, {}).top_3 == 0.5


def test_an_image_that_did_not_decode_counts_as_wrong():
    probabilities = sure([0, 2])
    probabilities[0] = 0
    found = Sums.of(np.array([0, 2]), probabilities).figures(NAMES, 0.95, {})
    assert (found.accuracy, found.top_3) == (0.5, 0.5)
    assert 10 < found.log_loss < np.inf  # its class had probability 0, which is clipped before the logarithm


def test_calibration_is_the_gap_between_confidence_and_accuracy():
    labels = np.zeros(100, int)
    answers = np.where(np.arange(100) < 70, 0, 1)
    assert Sums.of(labels, sure(answers, 0.7)).calibration_error == pytest.approx(0, abs=1e-6)
    assert Sums.of(labels, sure(answers, 0.95)).calibration_error == pytest.approx(0.25, abs=1e-6)


def test_sums_of_batches_give_the_figures_of_all():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 4, 1000), rng.dirichlet(np.ones(4), 1000).astype("float32")
    probabilities[::50] = 0
    whole = Sums.of(labels, probabilities).figures(NAMES, 0.95, {}).model_dump()
    bounds = [0, 1, 256, 257, 999, 1000]
    parts = [Sums.of(labels[start:end], probabilities[start:end]) for start, end in itertools.pairwise(bounds)]
    summed = reduce(add, parts).figures(NAMES, 0.95, {}).model_dump()
    for name in "log_loss", "calibration_error":
        assert summed.pop(name) == pytest.approx(whole.pop(name), rel=1e-12)
    assert summed == whole


def test_two_models_are_compared_example_by_example():
    labels = np.zeros(1000, int)
    serving = np.where(np.arange(1000) < 100, 1, 0)
    candidate = np.where((np.arange(1000) >= 90) & (np.arange(1000) < 160), 1, 0)
    found = compare(labels, candidate, serving, 0.95)
    assert (found.gained, found.lost, found.difference) == (90, 60, pytest.approx(0.03))
    low, high = found.interval
    assert low > 0 and high < 0.06  # two intervals of 0.9 and 0.93 apart would overlap
    assert compare(labels, serving, serving, 0.95).interval[0] < 0 < compare(labels, serving, serving, 0.95).interval[1]


def test_the_interval_of_a_difference_has_its_confidence():
    """About 95 % of the intervals of 400 random tests contain the true difference."""
    rng = np.random.default_rng(0)
    labels = np.zeros(180, int)
    hits = 0
    for _ in range(400):
        kinds = rng.choice(
            4, 180, p=[0.85, 0.05, 0.08, 0.02]
        )  # both correct, only the candidate, only the serving model, neither
        candidate, serving = ((~np.isin(kinds, right)).astype(int) for right in ([0, 1], [0, 2]))
        low, high = compare(labels, candidate, serving, 0.95).interval
        hits += low <= -0.03 <= high
    assert 0.93 <= hits / 400 <= 0.98


def test_models_of_different_classes_are_compared_on_shared_classes():
    names, serving_names = ["ant", "bee", "cow"], ["cow", "dog", "ant"]
    labels = np.repeat([0, 1, 2], [15, 40, 15])
    right = np.where(labels == 0, 2, 0)  # the serving model's indices of ant and cow; it has no class bee
    found = compare_shared(labels, names, labels, right, serving_names, 0.95)
    assert (found.examples, found.shared, found.gained, found.lost) == (30, ("ant", "cow"), 0, 0)
    assert found.accuracies == (1.0, 1.0)
    # A dog, a missing answer, and the candidate's bee all count as wrong.
    serving, candidate = right.copy(), labels.copy()
    serving[:2] = 1, -1
    candidate[2:7] = 1
    found = compare_shared(labels, names, candidate, serving, serving_names, 0.95)
    assert (found.gained, found.lost) == (2, 5)
    assert found.accuracies == (pytest.approx(25 / 30), pytest.approx(28 / 30))


def test_too_few_shared_examples_are_not_compared():
    labels = np.repeat([0, 1], [19, 100])
    assert compare_shared(labels, ["ant", "bee"], labels, np.zeros(119, int), ["ant", "cow"], 0.95) is None
    assert compare_shared(labels, ["ant", "bee"], labels, np.zeros(119, int), ["x", "y"], 0.95) is None

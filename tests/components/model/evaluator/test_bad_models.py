"""Models that were made worse on purpose, trained on real digits: which bound stops each, and in which words."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from components.model.evaluator.judgement import GateSettings, judge
from components.model.evaluator.measures import compare, measure, predicted_classes

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
BOUNDS = GateSettings(accuracy=0.85, class_accuracy=0.6, calibration=0.1, tolerance=0.01)
PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS /= 16
TRAINED, TEST = slice(900), slice(900, None)


def probabilities(labels, count=900, neighbours=None):
    """What a model answers to the test images; `neighbours`: a model that is sure of whatever it says."""
    model = KNeighborsClassifier(neighbours) if neighbours else LogisticRegression(C=10, solver="newton-cholesky")
    found = np.zeros((len(LABELS) - 900, len(NAMES)), "float32")
    model.fit(PIXELS[:count], labels[:count])
    found[:, model.classes_] = model.predict_proba(PIXELS[TEST])
    return found


def missed(candidate, serving=None, bounds=BOUNDS):
    """The words for each bound that was missed, by its name."""
    labels = LABELS[TEST]
    figures = [measure(labels, one, NAMES, 0.95, {}) for one in (candidate, serving) if one is not None]
    comparison = None
    if serving is not None:
        comparison = compare(labels, predicted_classes(candidate), predicted_classes(serving), 0.95)
    checks = judge(bounds, *figures, comparison=comparison).checks
    return {check.name: str(check) for check in checks if not check.passed}


@pytest.fixture(scope="module")
def good():
    return probabilities(LABELS)


def test_a_good_model_passes(good):
    assert missed(good) == missed(good, serving=good) == {}


def test_shuffled_labels():
    shuffled = np.random.default_rng(0).permutation(LABELS[TRAINED])
    found = missed(probabilities(shuffled, neighbours=1))
    assert found.keys() == {"accuracy", "worst class accuracy", "calibration error"}
    assert found["accuracy"].startswith("accuracy 0.1") and "is below 0.8500 (" in found["accuracy"]
    assert found["calibration error"].endswith("is above 0.1000")


def test_a_model_that_is_right_and_far_too_unsure(good):
    """Of accuracy alone it would pass."""
    assert missed(0.3 * good + 0.07).keys() == {"calibration error"}


def test_one_broken_class():
    """Every 8 was labelled 3: a lower bound on all of them would let it pass."""
    found = missed(probabilities(np.where(LABELS == 8, 3, LABELS)), bounds=BOUNDS.model_copy(update={"accuracy": 0.75}))
    assert found.keys() == {"worst class accuracy"}
    assert found["worst class accuracy"].startswith("worst class accuracy 0.0000 is below 0.6000 (eight; ")


def test_worse_than_the_serving_model_though_good_enough_by_itself(good):
    found = missed(probabilities(LABELS, count=300), serving=good)
    assert found.keys() == {"accuracy against the serving model"}
    assert "is below -0.0100 (0.8" in found["accuracy against the serving model"]

"""Models that were made worse on purpose, trained on real digits: the bound that each misses, and the message."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from components.model.evaluator.judgement import GateSettings, judge
from components.model.evaluator.measures import Sums, compare, predicted_classes

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
BOUNDS = GateSettings(accuracy=0.85, class_accuracy=0.6, calibration=0.1, tolerance=0.01)
PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS /= 16
TRAINED, TEST = slice(900), slice(900, None)


def probabilities(labels, count=900, neighbours=None):
    """Answers of a model to the test images. With `neighbours` the model is certain of every answer."""
    model = KNeighborsClassifier(neighbours) if neighbours else LogisticRegression(C=10, solver="newton-cholesky")
    found = np.zeros((len(LABELS) - 900, len(NAMES)), "float32")
    model.fit(PIXELS[:count], labels[:count])
    found[:, model.classes_] = model.predict_proba(PIXELS[TEST])
    return found


def missed(candidate, serving=None, bounds=BOUNDS):
    """Return the message of each bound that was missed, by its name."""
    labels = LABELS[TEST]
    figures = [Sums.of(labels, one).figures(NAMES, 0.95, {}) for one in (candidate, serving) if one is not None]
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


def test_a_model_trained_on_shuffled_labels_fails():
    shuffled = np.random.default_rng(0).permutation(LABELS[TRAINED])
    found = missed(probabilities(shuffled, neighbours=1))
    assert found.keys() == {"accuracy", "worst class accuracy", "calibration error"}
    assert found["accuracy"].startswith("accuracy 0.1") and "is below 0.8500 (" in found["accuracy"]
    assert found["calibration error"].endswith("is above 0.1000")


def test_a_correct_but_underconfident_model_fails_calibration(good):
    """The accuracy alone would satisfy its bound."""
    assert missed(0.3 * good + 0.07).keys() == {"calibration error"}


def test_one_bad_class_fails():
    """Every 8 was labelled 3. The accuracy on the whole test set still satisfies a bound of 0.75."""
    found = missed(probabilities(np.where(LABELS == 8, 3, LABELS)), bounds=BOUNDS.model_copy(update={"accuracy": 0.75}))
    assert found.keys() == {"worst class accuracy"}
    assert found["worst class accuracy"].startswith("worst class accuracy 0.0000 is below 0.6000 (eight; ")


def test_a_good_model_that_is_worse_than_the_serving_model_fails(good):
    found = missed(probabilities(LABELS, count=300), serving=good)
    assert found.keys() == {"accuracy against the serving model"}
    assert "is below -0.0100 (0.8" in found["accuracy against the serving model"]

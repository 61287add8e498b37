"""Measures of predictions, and their uncertainty. Imports neither TFX nor TensorFlow."""

import numpy as np
from scipy.stats import binomtest, norm
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from components.model.evaluator.judgement import Comparison, ModelFigures

_BINS = 15  # of confidence, in the calibration error
FEWEST_SHARED = 20  # test images of shared classes that a comparison needs to say anything


def measure(
    labels: np.ndarray, probabilities: np.ndarray, names: list[str], confidence: float, looks_accuracy: dict[str, float]
) -> ModelFigures:
    """labels: int [N]; probabilities: float [N, classes], finite, a row of zeros for no answer; names: in index order.

    An example without an answer is wrong, among the three likeliest too, and its class has probability 0.
    """
    answers = predicted_classes(probabilities)
    matrix = confusion_matrix(labels, answers, labels=range(len(names)))
    right, of_class, times_answered = matrix.diagonal(), np.bincount(labels, minlength=len(names)), matrix.sum(axis=0)
    present = [index for index in range(len(names)) if of_class[index]]
    others = np.arange(len(names)) != labels[:, None]
    shares = np.where(answers[:, None] < 0, others, probabilities.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)  # float32 sums to 1 but for rounding
    return ModelFigures(
        classes=names,
        examples=len(labels),
        accuracy=float((answers == labels).mean()),
        accuracy_interval=_exact(int(right.sum()), len(labels), confidence),
        top_3=float(top_k_accuracy_score(labels, shares, k=3, labels=range(len(names)))) if len(names) > 3 else 1.0,
        log_loss=float(log_loss(labels, shares, labels=range(len(names)))),
        calibration_error=calibration_error(labels, probabilities),
        class_accuracy={names[index]: float(right[index] / of_class[index]) for index in present},
        class_accuracy_interval={
            names[index]: _exact(int(right[index]), int(of_class[index]), confidence) for index in present
        },
        class_precision={names[index]: float(right[index] / max(times_answered[index], 1)) for index in present},
        looks_accuracy=looks_accuracy,
        confusion=matrix.tolist(),
    )


def predicted_classes(probabilities: np.ndarray) -> np.ndarray:
    """The likeliest class of each row, int [N]; -1, which is no class, for a row of zeros."""
    return np.where(probabilities.any(axis=1), probabilities.argmax(axis=1), -1)


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error (Guo et al., 2017): the gap of confidence and accuracy, over its bins."""
    confidence = probabilities.max(axis=1)
    right = predicted_classes(probabilities) == labels
    bins = confidence_bins(confidence)
    gaps = np.abs(np.bincount(bins, right, _BINS) - np.bincount(bins, confidence, _BINS))
    return float(gaps.sum() / len(labels))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """The bin of each confidence, int [N]."""
    bins: np.ndarray = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return bins


def compare(labels: np.ndarray, candidate: np.ndarray, serving: np.ndarray, confidence: float) -> Comparison:
    """Accuracy of the candidate less that of the serving model on the same examples, by the answers of both (int [N]).

    Only examples that one of them has right and the other wrong say anything about the difference, so its interval is
    narrower than two separate ones: Agresti and Min (2005), which holds for few examples, too.
    """
    gained = int(((candidate == labels) & (serving != labels)).sum())
    lost = int(((candidate != labels) & (serving == labels)).sum())
    n, more, less = len(labels) + 2, gained + 0.5, lost + 0.5
    middle = (more - less) / n
    error = np.sqrt(more + less - (more - less) ** 2 / n) / n
    reach = norm.ppf((1 + confidence) / 2) * error
    return Comparison(
        examples=len(labels),
        gained=gained,
        lost=lost,
        difference=(gained - lost) / len(labels),
        interval=(float(middle - reach), float(middle + reach)),
        accuracies=(float((candidate == labels).mean()), float((serving == labels).mean())),
    )


def compare_shared(
    labels: np.ndarray,
    names: list[str],
    candidate: np.ndarray,
    serving: np.ndarray,
    serving_names: list[str],
    confidence: float,
) -> Comparison | None:
    """Compare with a serving model of other classes, on the examples of the classes that both models know.

    Args:
        labels: int [N], as `names` numbers the classes.
        names: the candidate's classes, in index order.
        candidate: the candidate's answers, int [N].
        serving: the serving model's answers, int [N], as `serving_names` numbers the classes; -1 for no answer.
        serving_names: the serving model's classes, in index order.
        confidence: of the interval.

    Returns:
        The comparison, or None if fewer than `FEWEST_SHARED` examples are of such classes.
    """
    shared = [name for name in names if name in serving_names]
    compared = np.isin(labels, [names.index(name) for name in shared])
    if compared.sum() < FEWEST_SHARED:
        return None
    # An answer with a class that the candidate lacks becomes -1, as a missing answer is: both count as wrong.
    as_ours = np.array([names.index(name) if name in shared else -1 for name in serving_names] + [-1])
    comparison = compare(labels[compared], candidate[compared], as_ours[serving][compared], confidence)
    return comparison.model_copy(update={"shared": tuple(shared)})


def _exact(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval of a share."""
    interval = binomtest(successes, trials).proportion_ci(confidence)
    return float(interval.low), float(interval.high)

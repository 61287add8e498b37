"""Measures of predictions and their uncertainty. Imports neither TFX nor TensorFlow."""

import numpy as np
from scipy.stats import binomtest, norm
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from components.model.evaluator.judgement import Comparison, ModelFigures

_BINS = 15  # bins of confidence in the calibration error
FEWEST_SHARED = 20  # smallest number of test images of shared classes for a comparison


def measure(
    labels: np.ndarray, probabilities: np.ndarray, names: list[str], confidence: float, looks_accuracy: dict[str, float]
) -> ModelFigures:
    """Measure the predictions of one model.

    An example without an answer counts as wrong in every figure, and its class has probability 0.

    Args:
        labels: int [N].
        probabilities: Finite numbers, float [N, classes]. A row of zeros means that the model gave no answer.
        names: Class names, in index order.
        confidence: Confidence level of the intervals.
        looks_accuracy: Accuracy on thirds of the images, which is copied to the result.

    Returns:
        The figures.
    """
    answers = predicted_classes(probabilities)
    matrix = confusion_matrix(labels, answers, labels=range(len(names)))
    correct, per_class, answered = matrix.diagonal(), np.bincount(labels, minlength=len(names)), matrix.sum(axis=0)
    present = [index for index in range(len(names)) if per_class[index]]
    # An example without an answer gets equal probabilities for all classes but its own.
    others = np.arange(len(names)) != labels[:, None]
    shares = np.where(answers[:, None] < 0, others, probabilities.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)  # float32 probabilities do not sum to exactly 1
    return ModelFigures(
        classes=names,
        examples=len(labels),
        accuracy=float((answers == labels).mean()),
        accuracy_interval=_exact_interval(int(correct.sum()), len(labels), confidence),
        top_3=float(top_k_accuracy_score(labels, shares, k=3, labels=range(len(names)))) if len(names) > 3 else 1.0,
        log_loss=float(log_loss(labels, shares, labels=range(len(names)))),
        calibration_error=calibration_error(labels, probabilities),
        class_accuracy={names[index]: float(correct[index] / per_class[index]) for index in present},
        class_accuracy_interval={
            names[index]: _exact_interval(int(correct[index]), int(per_class[index]), confidence) for index in present
        },
        class_precision={names[index]: float(correct[index] / max(answered[index], 1)) for index in present},
        looks_accuracy=looks_accuracy,
        confusion=matrix.tolist(),
    )


def predicted_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return the most probable class of each row, int [N]; -1 for a row of zeros, which means no answer."""
    return np.where(probabilities.any(axis=1), probabilities.argmax(axis=1), -1)


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the expected calibration error: the mean gap between confidence and accuracy (Guo et al., 2017).

    Args:
        labels: int [N].
        probabilities: float [N, classes].

    Returns:
        The mean over bins of confidence, weighted by their numbers of examples; from 0 to 1.
    """
    confidence = probabilities.max(axis=1)
    correct = predicted_classes(probabilities) == labels
    bins = confidence_bins(confidence)
    gaps = np.abs(np.bincount(bins, correct, _BINS) - np.bincount(bins, confidence, _BINS))
    return float(gaps.sum() / len(labels))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence, int [N]."""
    bins: np.ndarray = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return bins


def compare(labels: np.ndarray, candidate: np.ndarray, serving: np.ndarray, confidence: float) -> Comparison:
    """Compare the accuracies of the candidate and the serving model on the same examples.

    Only examples that exactly one of the two models answers correctly contribute to the difference. Its interval is
    therefore narrower than those of two separate accuracies. The interval is that of Agresti and Min (2005), which is
    valid for few examples, too.

    Args:
        labels: int [N].
        candidate: The candidate's answers, int [N].
        serving: The serving model's answers, int [N].
        confidence: Confidence level of the interval.

    Returns:
        The comparison.
    """
    gained = int(((candidate == labels) & (serving != labels)).sum())
    lost = int(((candidate != labels) & (serving == labels)).sum())
    n, more, less = len(labels) + 2, gained + 0.5, lost + 0.5
    middle = (more - less) / n
    error = np.sqrt(more + less - (more - less) ** 2 / n) / n
    half_width = norm.ppf((1 + confidence) / 2) * error
    return Comparison(
        examples=len(labels),
        gained=gained,
        lost=lost,
        difference=(gained - lost) / len(labels),
        interval=(float(middle - half_width), float(middle + half_width)),
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
    """Compare a candidate with a serving model of other classes, on the examples of the classes that both models know.

    Args:
        labels: Indices into `names`, int [N].
        names: The candidate's classes, in index order.
        candidate: The candidate's answers, indices into `names`, int [N].
        serving: The serving model's answers, indices into `serving_names`, int [N]; -1 for no answer.
        serving_names: The serving model's classes, in index order.
        confidence: Confidence level of the interval.

    Returns:
        The comparison, or None if fewer than `FEWEST_SHARED` examples are of shared classes.
    """
    shared = [name for name in names if name in serving_names]
    compared = np.isin(labels, [names.index(name) for name in shared])
    if compared.sum() < FEWEST_SHARED:
        return None
    # An answer with a class that the candidate does not know counts as wrong. It becomes -1, like a missing answer.
    candidate_index = np.array([names.index(name) if name in shared else -1 for name in serving_names] + [-1])
    comparison = compare(labels[compared], candidate[compared], candidate_index[serving][compared], confidence)
    return comparison.model_copy(update={"shared": tuple(shared)})


def _exact_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Compute the exact (Clopper-Pearson) interval of a share."""
    interval = binomtest(successes, trials).proportion_ci(confidence)
    return float(interval.low), float(interval.high)

"""Measures of predictions and their uncertainty. Imports neither TFX nor TensorFlow."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from scipy.stats import binomtest, norm
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from components.model.evaluator.judgement import Comparison, ModelFigures

# Part of a ModelEvaluation artifact: a folder of Parquet files with a row for each example of the test set.
PREDICTIONS = "predictions.parquet"
BINS = 15  # bins of confidence in the calibration error
FEWEST_SHARED = 20  # smallest number of test images of shared classes for a comparison


@dataclass(frozen=True)
class Sums:
    """Sums over the predictions of one model, from which its figures follow. Sums of batches can be added."""

    per_class: np.ndarray  # examples, int [classes]
    confusion: np.ndarray  # examples by class and answer, int [classes, classes]
    top_3: int  # examples whose class is among the three most probable ones
    loss: float  # sum of the log losses
    bin_correct: np.ndarray  # right answers by confidence, float [bins]
    bin_confidence: np.ndarray  # sum of confidences, float [bins]

    @classmethod
    def of(cls, labels: np.ndarray, probabilities: np.ndarray) -> Self:
        """Sum up predictions.

        Args:
            labels: int [N].
            probabilities: Finite numbers, float [N, classes]. A row of zeros means that the model gave no answer.
        """
        classes = range(probabilities.shape[1])
        answers = predicted_classes(probabilities)
        # An example without an answer gets equal probabilities for all classes but its own.
        others = np.arange(len(classes)) != labels[:, None]
        shares = np.where(answers[:, None] < 0, others, probabilities.astype(np.float64))
        shares /= shares.sum(axis=1, keepdims=True)  # float32 probabilities do not sum to exactly 1
        confidence = probabilities.max(axis=1)
        bins = confidence_bins(confidence)
        return cls(
            per_class=np.bincount(labels, minlength=len(classes)),
            confusion=confusion_matrix(labels, answers, labels=classes),
            top_3=int(top_k_accuracy_score(labels, shares, k=3, labels=classes, normalize=False))
            if len(classes) > 3
            else len(labels),
            loss=float(log_loss(labels, shares, labels=classes, normalize=False)),
            bin_correct=np.bincount(bins, answers == labels, BINS),
            bin_confidence=np.bincount(bins, confidence, BINS),
        )

    def __add__(self, other: Self) -> Self:
        """Add the sums of other examples."""
        return type(self)(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def examples(self) -> int:
        """Number of examples."""
        return int(self.per_class.sum())

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy (Guo et al., 2017).

        It is the mean over bins of confidence, weighted by their numbers of examples; from 0 to 1.
        """
        return float(np.abs(self.bin_correct - self.bin_confidence).sum() / self.examples)

    def figures(self, names: list[str], confidence: float, looks: dict[str, tuple[int, int]]) -> ModelFigures:
        """Return the figures of the model. An example without an answer counts as wrong in every figure.

        Args:
            names: Class names, in index order.
            confidence: Confidence level of the intervals.
            looks: Number of correct answers and of examples in each third of the images.
        """
        correct, per_class, answered = self.confusion.diagonal(), self.per_class, self.confusion.sum(axis=0)
        present = [index for index in range(len(names)) if per_class[index]]
        return ModelFigures(
            classes=names,
            examples=self.examples,
            accuracy=float(correct.sum() / self.examples),
            accuracy_interval=exact_interval(int(correct.sum()), self.examples, confidence),
            top_3=self.top_3 / self.examples,
            log_loss=self.loss / self.examples,
            calibration_error=self.calibration_error,
            class_accuracy={names[index]: float(correct[index] / per_class[index]) for index in present},
            class_accuracy_interval={
                names[index]: exact_interval(int(correct[index]), int(per_class[index]), confidence)
                for index in present
            },
            class_precision={names[index]: float(correct[index] / max(answered[index], 1)) for index in present},
            looks_accuracy={look: right / count for look, (right, count) in looks.items()},
            looks_accuracy_interval={
                look: exact_interval(right, count, confidence) for look, (right, count) in looks.items()
            },
            confusion=self.confusion.tolist(),
        )


def predicted_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return the most probable class of each row, int [N]; -1 for a row of zeros, which means no answer."""
    return np.where(probabilities.any(axis=1), probabilities.argmax(axis=1), -1)


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence, int [N]."""
    bins: np.ndarray = np.minimum((confidence * BINS).astype(int), BINS - 1)
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


def exact_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Compute the exact (Clopper-Pearson) interval of a share.

    Args:
        successes: Number of successes.
        trials: Number of trials, at least one.
        confidence: Confidence level of the interval.

    Returns:
        The limits of the share.
    """
    interval = binomtest(successes, trials).proportion_ci(confidence)
    return float(interval.low), float(interval.high)

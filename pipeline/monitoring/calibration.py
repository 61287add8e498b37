"""Accuracy that the model's confidence predicts, by its accuracy at equal confidence on the test set."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import norm

from components.model.evaluator.judgement import Interval
from components.model.evaluator.measures import BINS, confidence_bins

_GROUPS = 15  # groups of test images with similar confidence
_SMALLEST = 20  # test images in a group


@dataclass(frozen=True)
class Calibration:
    """Accuracy on the test set by confidence, in groups of about equal size."""

    tested: int
    correct: int
    edges: np.ndarray  # float64 [groups - 1], confidences that separate the groups
    sizes: np.ndarray  # int [groups], test images
    accuracy: np.ndarray  # float64 [groups]
    confidences: list[int]  # histogram of the confidence on the test set

    @classmethod
    def of(cls, confidence: np.ndarray, correct: np.ndarray) -> Self:
        """Calibrate on the test set.

        Args:
            confidence: float [N], the largest probability of each answer.
            correct: bool [N], whether the answer is right.
        """
        groups = max(1, min(_GROUPS, len(confidence) // _SMALLEST))
        edges = np.unique(np.quantile(confidence, np.linspace(0, 1, groups + 1)[1:-1]))
        group = np.searchsorted(edges, confidence, side="right")
        sizes = np.bincount(group, minlength=len(edges) + 1)
        right = np.bincount(group, correct, len(edges) + 1)
        return cls(
            tested=len(confidence),
            correct=int(correct.sum()),
            edges=edges,
            sizes=sizes,
            # An empty group may follow the largest edge. It then gets the accuracy of the whole test set.
            accuracy=np.where(sizes > 0, right / np.maximum(sizes, 1), correct.mean()),
            confidences=confidence_histogram(confidence),
        )

    def expect(self, confidence: np.ndarray) -> np.ndarray:
        """Return the probability that each answer is right, float64 [N].

        Args:
            confidence: float [N], the largest probability of each answer.
        """
        expected: np.ndarray = self.accuracy[np.searchsorted(self.edges, confidence, side="right")]
        return expected

    @property
    def deviation(self) -> float:
        """Standard deviation of `expect` on the test set."""
        mean = np.average(self.accuracy, weights=self.sizes)
        return float(np.sqrt(np.average((self.accuracy - mean) ** 2, weights=self.sizes)))

    def interval(self, confidence: np.ndarray, level: float) -> Interval:
        """Return the interval of the accuracy of answers, by the normal approximation.

        It includes the chance of the answers themselves, and that of the accuracy of each group of test images.

        Args:
            confidence: float [N], the largest probability of each answer.
            level: confidence level of the interval.
        """
        expected = self.expect(confidence)
        shares = np.bincount(np.searchsorted(self.edges, confidence, side="right"), minlength=len(self.sizes)) / len(
            confidence
        )
        smoothed = (self.accuracy * self.sizes + 0.5) / (self.sizes + 1)  # a group without mistakes has some variance
        variance = (shares**2 * smoothed * (1 - smoothed) / np.maximum(self.sizes, 1)).sum()
        variance += (expected * (1 - expected)).sum() / len(confidence) ** 2
        half_width = norm.ppf((1 + level) / 2) * np.sqrt(variance)
        mean = expected.mean()
        return float(max(mean - half_width, 0)), float(min(mean + half_width, 1))


def confidence_histogram(confidence: np.ndarray) -> list[int]:
    """Return the number of answers by confidence, in bins of equal width.

    Args:
        confidence: float [N], the largest probability of each answer.
    """
    histogram: list[int] = np.bincount(confidence_bins(np.clip(confidence, 0, 1)), minlength=BINS).tolist()
    return histogram

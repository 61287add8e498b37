"""Largest values that a check of unchanged traffic has by chance.

Each function returns a limit that the value exceeds with at most a given probability, if the images of the window and
those of the reference are independent draws from the same distribution. The limits hold for any number of images:
small windows have wide limits.
"""

import math

from scipy.optimize import brentq
from scipy.stats import beta, binom


def divergence_limit(bins: int, window: int, reference: int, probability: float) -> float:
    """Return the limit of the Jensen-Shannon divergence, in bits, of the histograms of two samples.

    The divergence of two histograms is at most half of the sum of their Kullback-Leibler divergences from any third
    distribution. Here this is the distribution that both were drawn from. Agrawal (2020) bounds the tail of each.

    Args:
        bins: number of bins.
        window: number of images in the window.
        reference: number of images that the window is compared with.
        probability: probability of a larger value.
    """
    nats = sum(_kullback_leibler_limit(bins, images, probability / 2) for images in (window, reference)) / 2
    return min(nats / math.log(2), 1.0)


def _kullback_leibler_limit(bins: int, images: int, probability: float) -> float:
    """Return the limit of the divergence, in nats, of a histogram from its distribution (Agrawal, 2020, theorem I.2).

    The probability of a divergence above d is at most exp(-n d) (e n d / (k - 1))^(k - 1).
    """
    free = bins - 1
    if free == 0:
        return 0.0
    wanted = math.log(1 / probability)

    def exponent(x: float) -> float:
        return x - free * (1 + math.log(x / free)) - wanted

    # The exponent grows from -wanted at x = free, and is positive at the upper end.
    return float(brentq(exponent, free, 4 * (free + wanted) + 10)) / images


def share_limit(shares: int, window: int, reference: int, probability: float) -> float:
    """Return the limit of the largest difference of several shares between two samples (Hoeffding's inequality).

    Args:
        shares: number of shares, such as classes.
        window: number of images in the window.
        reference: number of images that the window is compared with.
        probability: probability of a larger value.
    """
    tail = math.log(4 * shares / probability) / 2
    return math.sqrt(tail / window) + math.sqrt(tail / reference)


def mean_limit(deviation: float, width: float, window: int, reference: int, probability: float) -> float:
    """Return the limit of the difference between two means (Bernstein's inequality).

    Args:
        deviation: standard deviation of a value, measured on the reference.
        width: difference between the largest and the smallest possible value.
        window: number of images in the window.
        reference: number of images that the window is compared with.
        probability: probability of a larger value.
    """
    tail = math.log(4 / probability)
    return sum(
        math.sqrt(2 * deviation**2 * tail / images) + width * tail / (3 * images) for images in (window, reference)
    )


def proportion_limit(bound: float, trials: int, probability: float) -> float:
    """Return the limit of an observed share whose true value is at most `bound` (binomial distribution).

    Args:
        bound: largest allowed share.
        trials: number of observations.
        probability: probability of a larger value.
    """
    return float(binom.isf(probability, trials, min(bound, 1.0))) / trials


def accuracy_loss_limit(correct: int, tested: int, window: int, probability: float) -> float:
    """Return the limit of the loss of accuracy in a window since the test set (binomial distribution).

    Args:
        correct: correctly answered test images.
        tested: number of test images.
        window: images of the window with a true label.
        probability: probability of a larger loss.
    """
    lowest = float(beta.ppf(probability / 2, correct, tested - correct + 1)) if correct else 0.0
    return correct / tested - float(binom.ppf(probability / 2, window, lowest)) / window

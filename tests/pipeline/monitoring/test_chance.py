"""Limits of what chance does: samples of one distribution rarely exceed them."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from pipeline.monitoring import chance

DRAWS, PROBABILITY = 4000, 0.02
SHARES = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01])


def exceeded(values, limit):
    """Return the share of values above a limit."""
    return float((np.asarray(values) > limit).mean())


@pytest.mark.parametrize("window", [5, 50, 1000])
def test_histograms(window):
    generator = np.random.default_rng(1)
    now, before = generator.multinomial(window, SHARES, DRAWS), generator.multinomial(300, SHARES, DRAWS)
    values = jensenshannon(now, before, base=2, axis=1) ** 2
    assert exceeded(values, chance.divergence_limit(len(SHARES), window, 300, PROBABILITY)) <= PROBABILITY
    largest = np.abs(now / window - before / 300).max(axis=1)
    assert exceeded(largest, chance.share_limit(len(SHARES), window, 300, PROBABILITY)) <= PROBABILITY


@pytest.mark.parametrize("window", [5, 50, 1000])
def test_means_and_shares(window):
    generator = np.random.default_rng(2)
    now, before = generator.beta(0.5, 2, (DRAWS, window)), generator.beta(0.5, 2, (DRAWS, 300))
    limit = chance.mean_limit(float(before.std()), 1.0, window, 300, PROBABILITY)
    assert exceeded(now.mean(axis=1) - before.mean(axis=1), limit) <= PROBABILITY
    failed = generator.binomial(window, 0.05, DRAWS) / window
    assert exceeded(failed, chance.proportion_limit(0.05, window, PROBABILITY)) <= PROBABILITY


def test_losses_of_accuracy():
    generator = np.random.default_rng(3)
    correct, right = generator.binomial(300, 0.8, DRAWS), generator.binomial(100, 0.8, DRAWS)
    losses = correct / 300 - right / 100
    limits = [chance.accuracy_loss_limit(count, 300, 100, PROBABILITY) for count in correct.tolist()]
    assert exceeded(losses - limits, 0) <= PROBABILITY


def test_limits_shrink_with_the_window():
    limits = [chance.divergence_limit(16, window, 10_000, 1e-8) for window in (10, 100, 1000, 10_000)]
    assert limits[0] == 1 and limits == sorted(limits, reverse=True) and limits[-1] < 0.02
    assert chance.divergence_limit(1, 10, 10, 1e-8) == 0
    assert chance.accuracy_loss_limit(0, 100, 10, 0.01) == 0

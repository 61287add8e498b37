"""Sorted index of numbers, by which a process finds a few of many images. It takes 8 bytes for each number."""

from collections.abc import Iterable

import numpy as np


def merge(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the distinct numbers of several arrays in ascending order, uint64 [N]."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def contains(index: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return which numbers an index contains, bool [N].

    Args:
        index: sorted numbers, uint64 [M].
        numbers: the numbers, uint64 [N].
    """
    # np.isin would sort the whole index at each call.
    places = np.searchsorted(index, numbers)
    places[places == len(index)] = 0
    return index[places] == numbers if len(index) else np.zeros(len(numbers), bool)

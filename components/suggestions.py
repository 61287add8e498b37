"""Suggestions of the names that a user may have meant."""

import difflib
from collections.abc import Iterable

_CUTOFF = 0.5  # least similarity, from 0 to 1; low enough to find a long setting whose group is missing


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that are most similar to an unknown name.

    Args:
        name: the unknown name.
        known: the names to choose from.
        most: the largest number of names to return.

    Returns:
        Names with the most similar first. The list is empty if no name is similar.
    """
    return difflib.get_close_matches(name, list(known), n=most, cutoff=_CUTOFF)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that suggests the most similar known name.

    Args:
        name: the unknown name.
        known: the names to choose from.

    Returns:
        A question that ends with a space, or an empty string if no name is similar.
    """
    found = nearest(name, known)
    return f"did you mean {found[0]}? " if found else ""

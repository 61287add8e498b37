"""Names that a user may have meant."""

import difflib
from collections.abc import Iterable

_CUTOFF = 0.5  # of the similarity, from 0 to 1: a long setting without its group is still found


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the names most like an unknown one, the most similar first; none if no name is like it."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=_CUTOFF)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the question for the nearest name, with a space after it; empty if no name is like the unknown one."""
    found = nearest(name, known)
    return f"did you mean {found[0]}? " if found else ""

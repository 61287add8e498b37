"""What a source hands over, and how it says how far it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

SPLITS = ("train", "val", "test")

Progress = Callable[[str, int, int | None], None]
"""Called as progress("images read", done, total); total is None when nobody knows it."""


def silent(_what: str, _done: int, _total: int | None) -> None:
    """The progress that shows nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a source.

    split: one of SPLITS, or None when the source has no splits; id: where it came from, unique in the source;
    image: PNG or JPEG bytes, not yet checked.
    """

    split: str | None
    class_name: str
    id: bytes
    image: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record that cannot be used. `reason` comes from a small fixed set: the manifest counts by it."""

    id: bytes
    reason: str
    class_name: str | None = None  # where it is known, so that a class with nothing but rejected records is seen


@dataclass(frozen=True)
class Source:
    """A source that was found and may be read, once, with `records`.

    description: what the manifest calls it, without credentials; sha256: of all that `records` depends on;
    class_names: in index order, or None when the sorted names that came are the classes; total: number of records.
    """

    description: str
    sha256: str
    records: Callable[[], Iterator[Record | Rejected]]
    class_names: tuple[str, ...] | None = None
    total: int | None = None

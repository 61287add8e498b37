"""Interface of a source: the records that it yields, and the progress that it reports."""

import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from components.errors import UsageError
from components.suggestions import did_you_mean

SPLITS = ("train", "val", "test")

Progress = Callable[[str, int, int | None], None]
"""Called as progress("images read", done, total); total is None when nobody knows it."""


def no_progress(_what: str, _done: int, _total: int | None) -> None:
    """The progress that shows nothing."""


def normalize_name(name: str) -> str:
    """Return a name as it is compared: without regard to case, spaces around words and the encoding of accents."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", " ".join(folded.split()))


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
class RejectedRecord:
    """One record that cannot be used. `reason` comes from a small fixed set: the manifest counts by it."""

    id: bytes
    reason: str
    class_name: str | None = None  # where it is known, so that a class with nothing but rejected records is seen
    passed_over: bool = False  # plainly no image, so not a damaged one


@dataclass(frozen=True)
class Source:
    """A source that was found and may be read, once, with `records`.

    description: what the manifest calls it, without credentials; sha256: of all that `records` depends on;
    class_names: in index order, or None when the sorted names that came are the classes; total: number of records.
    """

    description: str
    sha256: str
    records: Callable[[], Iterator[Record | RejectedRecord]]
    class_names: tuple[str, ...] | None = None
    total: int | None = None


def select_classes(source: Source, classes: Collection[str]) -> Source:
    """The source with nothing but these classes, in its own order; what belongs to no class is left out as well.

    Raises UsageError for a class that it does not have: at once where it says which it has, else when it has been read.
    """

    def check(there: Collection[str]) -> None:
        for name in classes:
            if name not in there:
                raise UsageError(
                    f"--classes {name}: {source.description} has no such class: {did_you_mean(name, there)}it has "
                    f"{', '.join(sorted(there))}"
                )

    def records() -> Iterator[Record | RejectedRecord]:
        seen: set[str] = set()
        for record in source.records():
            if record.class_name is not None:
                seen.add(record.class_name)
            if record.class_name in classes:
                yield record
        check(seen)

    names = source.class_names
    if names is not None:
        check(names)
        names = tuple(name for name in names if name in classes)
    return replace(source, records=records, class_names=names, total=None)

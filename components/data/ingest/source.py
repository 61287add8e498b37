"""Interface of a source: its records, and the callback that reports progress."""

import functools
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from components.errors import UsageError
from components.suggestions import did_you_mean

SPLITS = ("train", "val", "test")
# Names that other tools give to splits. Some of them, such as "valid", may also be the name of a class. So a folder
# above class folders is a split only if its name is in SPLIT_FOLDERS.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}

Progress = Callable[[str, int, int | None], None]
"""Callback, called for example as progress("images read", done, total). The total is None if it is unknown."""


def no_progress(_what: str, _done: int, _total: int | None) -> None:
    """Ignore the progress."""


def normalize_name(name: str) -> str:
    """Normalize case, spaces and the encoding of accents, so that names can be compared."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", " ".join(folded.split()))


def split_named(name: str) -> str | None:
    """Return the split that a name such as "validation" stands for, or None if it is not the name of a split."""
    return _SPLIT_NAMES.get(normalize_name(name))


@dataclass(frozen=True, slots=True)
class Record:
    """Image of a source, before it is checked.

    Args:
        split: one of SPLITS, or None if the source has no splits.
        class_name: name of the class.
        id: origin of the image, unique within the source.
        image: PNG or JPEG bytes.
        dropped: true if a person decided that the image does not belong to the data.
    """

    split: str | None
    class_name: str
    id: bytes
    image: bytes
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """Record of a source that cannot be used.

    Args:
        id: origin of the record.
        reason: one of a few fixed texts, because the manifest counts rejected records by reason.
        class_name: name of the class, if known. It reveals a class in which every record is rejected.
        passed_over: true for a file that is obviously not an image. Such files do not count as rejected.
    """

    id: bytes
    reason: str
    class_name: str | None = None
    passed_over: bool = False


class Listing(NamedTuple):
    """Digest of everything that the records of a source depend on, and the number of its records."""

    sha256: str
    total: int | None  # None if it is unknown


class Parts(Protocol):
    """Division of a source into parts that can be read independently of each other.

    It is pickled and sent to worker processes, which have the files of the source at the same paths.
    """

    def divide(self, scratch: Path) -> Iterator[str]:
        """Yield the names of the parts, in the order of the source.

        Args:
            scratch: an empty folder that the workers can read, for files that describe the parts.
        """

    def digests(self, part: str) -> Iterator[bytes]:
        """Yield the lines of `sha256sum` for the files of a part. The digest of the source is that of all lines."""

    def records(self, part: str) -> Iterator[Record | RejectedRecord]:
        """Yield the records of a part. Those of all parts, in order, are the records of the source."""


@dataclass(frozen=True)
class Source:
    """Source of images that is ready to be read.

    Args:
        description: name of the source in the manifest, without credentials.
        listing: function that hashes the source. It is called at most once.
        records: function that returns the records. It is called at most once.
        class_names: names in index order. None: the classes are the sorted names that appear in the records.
        unknown_class_fix: advice to the user if a record has a class that is not in `class_names`.
        parts: the parts of the source, if it can be divided.
    """

    description: str
    listing: Callable[[], Listing]
    records: Callable[[], Iterator[Record | RejectedRecord]]
    class_names: tuple[str, ...] | None = None
    unknown_class_fix: str = "rename the class folders, or prepare the source as `images`"
    parts: Parts | None = None

    @functools.cached_property
    def _listed(self) -> Listing:
        return self.listing()

    @property
    def sha256(self) -> str:
        """Digest of everything that the records depend on. The source is hashed at the first access."""
        return self._listed.sha256

    @property
    def total(self) -> int | None:
        """Number of records, if known. The source is hashed at the first access."""
        return self._listed.total


def select_classes(source: Source, classes: Collection[str]) -> Source:
    """Restrict a source to some of its classes. Its parts are not restricted, see `only_classes`.

    Args:
        source: the source.
        classes: names of the classes to keep.

    Returns:
        A source with the remaining records in their order.

    Raises:
        UsageError: if the source does not have one of the classes. If the source does not know its class names in
            advance, its records raise this error once they have all been read.
    """

    def records() -> Iterator[Record | RejectedRecord]:
        seen: set[str] = set()
        yield from only_classes(source.records(), classes, seen)
        check_classes(source.description, classes, seen)

    names = source.class_names
    if names is not None:
        check_classes(source.description, classes, names)
        names = tuple(name for name in names if name in classes)
    return replace(source, listing=lambda: Listing(source.sha256, None), records=records, class_names=names)


def only_classes(
    records: Iterable[Record | RejectedRecord], classes: Collection[str], seen: set[str]
) -> Iterator[Record | RejectedRecord]:
    """Yield the records of some classes. Records without a class are left out as well.

    Args:
        records: records of all classes.
        classes: names of the classes to keep.
        seen: set to which the names of all classes are added.
    """
    for record in records:
        if record.class_name is not None:
            seen.add(record.class_name)
        if record.class_name in classes:
            yield record


def check_classes(description: str, classes: Collection[str], available: Collection[str]) -> None:
    """Check that a source has the classes that a user selects.

    Args:
        description: name of the source.
        classes: names of the selected classes.
        available: names of the classes that the source has.

    Raises:
        UsageError: if it does not have one of the classes.
    """
    for name in classes:
        if name not in available:
            raise UsageError(
                f"--classes {name}: {description} has no such class: {did_you_mean(name, available)}it has "
                f"{', '.join(sorted(available))}"
            )

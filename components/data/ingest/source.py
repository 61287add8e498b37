"""Interface of a source: its records, and the callback that reports progress."""

import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

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
    """

    split: str | None
    class_name: str
    id: bytes
    image: bytes


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


@dataclass(frozen=True)
class Source:
    """Source of images that is ready to be read.

    Args:
        description: name of the source in the manifest, without credentials.
        sha256: digest of everything that `records` depends on.
        records: function that returns the records. It is called once.
        class_names: names in index order. None: the classes are the sorted names that appear in the records.
        total: number of records, if known.
        unknown_class_fix: advice to the user if a record has a class that is not in `class_names`.
    """

    description: str
    sha256: str
    records: Callable[[], Iterator[Record | RejectedRecord]]
    class_names: tuple[str, ...] | None = None
    total: int | None = None
    unknown_class_fix: str = "rename the class folders, or prepare the source as `images`"


def select_classes(source: Source, classes: Collection[str]) -> Source:
    """Restrict a source to some of its classes. Records without a class are left out as well.

    Args:
        source: the source.
        classes: names of the classes to keep.

    Returns:
        A source with the remaining records in their order.

    Raises:
        UsageError: if the source does not have one of the classes. If the source does not know its class names in
            advance, its records raise this error once they have all been read.
    """

    def check(available: Collection[str]) -> None:
        for name in classes:
            if name not in available:
                raise UsageError(
                    f"--classes {name}: {source.description} has no such class: {did_you_mean(name, available)}it has "
                    f"{', '.join(sorted(available))}"
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

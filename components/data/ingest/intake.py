"""Intake of a source: checks its images, spools them, and refuses a source that cannot be used as a data set."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from components.data.ingest.checkers import check_images
from components.data.ingest.history import keys
from components.data.ingest.images import Shape, fix
from components.data.ingest.manifest import MAX_REJECTED_IDS, Recipe, Rejection, RemarkCount
from components.data.ingest.source import Progress, Record, RejectedRecord, Source, normalize_name
from components.data.ingest.spool import Images, Spool, SpoolFile
from components.errors import DataRefused

_NAMES_IN_MESSAGE = 10  # class names that a message lists


@dataclass
class Counted:
    """Number of records or images with something in common, and the first of their ids."""

    count: int = 0
    ids: list[str] = field(default_factory=list)  # the first MAX_REJECTED_IDS

    def add_id(self, id: bytes) -> None:
        """Add a record."""
        self.count += 1
        if self.count <= MAX_REJECTED_IDS:
            self.ids.append(id.decode("utf-8", "backslashreplace"))

    def add(self, later: "Counted") -> None:
        """Add the records that follow."""
        self.count += later.count
        self.ids = [*self.ids, *later.ids][:MAX_REJECTED_IDS]


@dataclass
class Tally:
    """Counts of the records of a source, or of a part of it."""

    records: int = 0
    numbers: dict[str, int] = field(default_factory=dict)  # of the classes, in the order in which they first appear
    shapes: list[Shape] = field(default_factory=list)  # the first two different ones
    rejected: dict[str, Counted] = field(default_factory=dict)  # by reason
    passed_over: dict[str, Counted] = field(default_factory=dict)  # by reason
    remarked: dict[str, Counted] = field(default_factory=dict)  # accepted images, by remark
    dropped: list[int] = field(default_factory=list)  # keys of the pixels of dropped images, see `history.keys`

    def number(self, class_name: str) -> int:
        """Return the provisional number of a class."""
        return self.numbers.setdefault(class_name, len(self.numbers))

    def add_shape(self, shape: Shape) -> None:
        """Add the shape of an accepted image."""
        if len(self.shapes) < 2 and shape not in self.shapes:
            self.shapes.append(shape)

    def add(self, later: "Tally") -> list[int]:
        """Add the tally of the records that follow. Returns the number of each of its classes in this tally."""
        self.records += later.records
        for shape in later.shapes:
            self.add_shape(shape)
        for mine, others in (
            (self.rejected, later.rejected),
            (self.passed_over, later.passed_over),
            (self.remarked, later.remarked),
        ):
            for name, counted in others.items():
                mine.setdefault(name, Counted()).add(counted)
        self.dropped += later.dropped
        return [self.number(name) for name in later.numbers]


class Intake(NamedTuple):
    """Summary of the images that were spooled."""

    class_names: tuple[str, ...]  # in index order
    image_shape: Shape | None  # None if the images have different shapes
    rejected: tuple[Rejection, ...]
    remarked: tuple[RemarkCount, ...]
    passed_over: Rejection | None
    dropped: tuple[int, ...]  # sorted keys of the pixels of dropped images


def take_in(
    records: Iterable[Record | RejectedRecord],
    file: SpoolFile,
    progress: Progress,
    total: int | None = None,
    processes: int | None = None,
) -> Tally:
    """Check records, and add every usable image to a spool file, labelled with a provisional number of its class.

    Args:
        records: the records.
        file: the spool file.
        progress: called with the number of images that have been read.
        total: number of the records, if known.
        processes: number of processes that check images; None for one on each core.

    Raises:
        DataRefused: if a decoder crashes.
    """
    tally = Tally()
    with closing(check_images(records, processes)) as results:
        for tally.records, result in enumerate(results, start=1):
            progress("images read", tally.records, total)
            if isinstance(result, RejectedRecord):
                if result.class_name is not None:
                    tally.number(result.class_name)
                rejected = tally.passed_over if result.passed_over else tally.rejected
                rejected.setdefault(result.reason, Counted()).add_id(result.id)
            else:
                record, image = result
                recognised_by = keys(record.class_name, record.id, image.digest)
                if record.dropped:
                    tally.dropped.append(recognised_by.content)
                    continue
                file.add(record.split, tally.number(record.class_name), record.id, record.image, recognised_by)
                for remark in image.remarks:
                    tally.remarked.setdefault(remark, Counted()).add_id(record.id)
                tally.add_shape(image.shape)
    return tally


def accept(
    source: Source,
    tally: Tally,
    images: Images,
    rows: np.ndarray,
    recipe: Recipe,
    earlier_classes: Sequence[str],
) -> tuple[Intake, Spool]:
    """Decide whether the records of a source can be used as a data set.

    Args:
        source: the source.
        tally: the tally of all its records.
        images: the spool files with its images.
        rows: the rows of the images.
        recipe: the parameters of the span.
        earlier_classes: classes of an earlier span, whose order is used if the source has the same classes and
            prescribes no order.

    Returns:
        The summary, and the images, labelled with the index of their class.

    Raises:
        DataRefused: if more than `recipe.max_rejected` of the records are rejected, an id appears twice, there are
            fewer than two classes, the classes are not those that the source must have, or a class name is not
            printable or has two spellings.
    """
    rejected, passed_over = (
        tuple(Rejection(reason=reason, count=found.count, ids=tuple(found.ids)) for reason, found in _sorted(groups))
        for groups in (tally.rejected, tally.passed_over)
    )
    if not tally.numbers and (rejected or passed_over):
        reasons = describe_rejections([*rejected, *passed_over])
        raise DataRefused(f"{source.description}: no record has a class: {reasons}")
    names = _class_names(tally.numbers, source, earlier_classes)
    others = len(tally.dropped) + sum(files.count for files in passed_over)
    _refuse_rejected(rejected, tally.records - others, source, recipe)
    index = {name: label for label, name in enumerate(names)}
    spool = Spool(images, rows, [index[name] for name in tally.numbers], recipe.seed)
    if (id := spool.repeated_id()) is not None:
        name = id.decode("utf-8", "backslashreplace")
        raise DataRefused(f"{source.description}: holds {name!r} more than once: keep one of them")
    remarked = tuple(
        RemarkCount(remark=name, count=found.count, images=len(rows), ids=tuple(found.ids))
        for name, found in _sorted(tally.remarked)
    )
    shape = tally.shapes[0] if len(tally.shapes) == 1 else None
    dropped = tuple(sorted({*tally.dropped}))
    return Intake(names, shape, rejected, remarked, passed_over[0] if passed_over else None, dropped), spool


def _sorted(groups: dict[str, Counted]) -> list[tuple[str, Counted]]:
    return sorted(groups.items(), key=lambda item: item[0])


def _class_names(found: dict[str, int], source: Source, earlier: Sequence[str]) -> tuple[str, ...]:
    """Return the class names in index order."""
    by_spelling: dict[str, str] = {}
    for name in sorted(found):
        if not name.isprintable():
            raise DataRefused(f"{source.description}: class name {name!r} is not printable UTF-8: rename the folder")
        if (other := by_spelling.setdefault(normalize_name(name), name)) != name:
            raise DataRefused(f"{source.description}: classes {_two_spellings(other, name)}: merge them")
    if source.class_names is None:
        if len(found) < 2:
            raise DataRefused(
                f"{source.description}: at least 2 classes are needed, found {sorted(found)}: add images of other "
                "classes"
            )
        return tuple(earlier) if set(earlier) == set(found) else tuple(sorted(found))
    if set(found) != set(source.class_names):
        advice = source.unknown_class_fix
        if set(found) < set(source.class_names):
            advice = "add images of the missing classes, or name the other classes with --classes"
        raise DataRefused(f"{source.description}: {describe_difference(source.class_names, found)}: {advice}")
    return source.class_names


def _two_spellings(name: str, other: str) -> str:
    """Describe the difference between two spellings of one name."""
    if name.casefold() == other.casefold():
        return f"{name!r} and {other!r} differ only by case"
    escaped = "" if (name + other).isascii() else f" ({name!a} and {other!a})"
    return f"{name!r} and {other!r}{escaped} differ only by spaces, case or the encoding of accents"


def _refuse_rejected(rejections: tuple[Rejection, ...], records: int, source: Source, recipe: Recipe) -> None:
    count = sum(rejection.count for rejection in rejections)
    if count > recipe.max_rejected * records:
        raise DataRefused(
            f"{source.description}: {count:,} of {records:,} records rejected ({count / records:.1%}), "
            f"the bound is {recipe.max_rejected:.1%}: {describe_rejections(rejections)}; "
            "repair or remove them, or allow more with --max-rejected"
        )


def describe_rejections(rejections: Iterable[Rejection]) -> str:
    """Describe rejected records for a message: their numbers, reasons and fixes."""
    return "; ".join(
        f"{rejection.count:,}: {rejection.reason} (first: {rejection.ids[0]})"
        + (f": {advice}" if (advice := fix(rejection.reason)) else "")
        for rejection in rejections
    )


def describe_difference(expected: Sequence[str], found: Iterable[str]) -> str:
    """Describe the difference between two lists of class names for a message.

    Args:
        expected: names in index order.
        found: names that differ from them in content or order.
    """
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if not missing and not unexpected:
        pairs = zip(expected, found, strict=False)
        index, pair = next((index, pair) for index, pair in enumerate(pairs) if len({*pair}) == 2)
        return f"class {index} is {pair[1]!r}, expected {pair[0]!r}"
    by_spelling = {normalize_name(name): name for name in missing}
    for name in unexpected:
        if (other := by_spelling.get(normalize_name(name))) is not None:
            return f"classes {_two_spellings(other, name)}: rename the second like the first"
    return f"missing classes {_first_names(missing)}, unexpected classes {_first_names(unexpected)}"


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_IN_MESSAGE:,} more" if len(names) > _NAMES_IN_MESSAGE else ""
    return f"{list(names[:_NAMES_IN_MESSAGE])}{more}"

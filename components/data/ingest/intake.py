"""Intake of a source: checks its images, spools them, and refuses a source that cannot be used as a data set."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from components.data.ingest.checkers import check_images
from components.data.ingest.history import keys
from components.data.ingest.images import Shape, fix
from components.data.ingest.manifest import MAX_REJECTED_IDS, Recipe, Rejection, RemarkCount
from components.data.ingest.source import Progress, RejectedRecord, Source, normalize_name
from components.data.ingest.spool import Spool
from components.errors import DataRefused

_NAMES_IN_MESSAGE = 10  # class names that a message lists


class Intake(NamedTuple):
    """Summary of the images that were spooled."""

    class_names: tuple[str, ...]  # in index order
    image_shape: Shape | None  # None if the images have different shapes
    rejected: tuple[Rejection, ...]
    remarked: tuple[RemarkCount, ...]
    passed_over: Rejection | None


def spool_images(
    source: Source, spool: Spool, recipe: Recipe, progress: Progress, earlier_classes: Sequence[str] = ()
) -> Intake:
    """Add every usable image of a source to a spool, labelled with the index of its class.

    Args:
        source: the source.
        spool: the spool, which is finished by this function.
        recipe: the parameters of the span.
        progress: called with the number of images that have been read.
        earlier_classes: classes of an earlier span, whose order is used if the source has the same classes and
            prescribes no order.

    Raises:
        DataRefused: if more than `recipe.max_rejected` of the records are rejected, an id appears twice, there are
            fewer than two classes, the classes are not those that the source must have, or a class name is not
            printable or has two spellings.
    """
    numbers: dict[str, int] = {}  # provisional numbers of the classes, in the order in which they first appear
    shapes: set[Shape] = set()
    counts: Counter[tuple[bool, str]] = Counter()  # numbers of rejected records, by `passed_over` and reason
    ids: defaultdict[tuple[bool, str], list[str]] = defaultdict(list)
    remark_counts: Counter[str] = Counter()  # numbers of accepted images, by remark
    remark_ids: defaultdict[str, list[str]] = defaultdict(list)
    done = 0
    with closing(check_images(source.records())) as results:
        for done, result in enumerate(results, start=1):
            progress("images read", done, source.total)
            if isinstance(result, RejectedRecord):
                if result.class_name is not None:
                    numbers.setdefault(result.class_name, len(numbers))
                kind = result.passed_over, result.reason
                counts[kind] += 1
                if counts[kind] <= MAX_REJECTED_IDS:
                    ids[kind].append(result.id.decode("utf-8", "backslashreplace"))
            else:
                record, image = result
                label = numbers.setdefault(record.class_name, len(numbers))
                recognised_by = keys(record.class_name, record.id, image.digest)
                spool.add(record.split, label, record.id, record.image, recognised_by)
                for remark in image.remarks:
                    remark_counts[remark] += 1
                    if remark_counts[remark] <= MAX_REJECTED_IDS:
                        remark_ids[remark].append(record.id.decode("utf-8", "backslashreplace"))
                if len(shapes) < 2:
                    shapes.add(image.shape)
    names = _class_names(numbers, source, earlier_classes)
    rejected, passed_over = (
        tuple(
            Rejection(reason=kind[1], count=counts[kind], ids=tuple(ids[kind]))
            for kind in sorted(counts)
            if kind[0] == passed_over
        )
        for passed_over in (False, True)
    )
    _refuse_rejected(rejected, done - sum(files.count for files in passed_over), source, recipe)
    index = {name: label for label, name in enumerate(names)}
    spool.finish([index[name] for name in numbers])
    if (id := spool.repeated_id()) is not None:
        name = id.decode("utf-8", "backslashreplace")
        raise DataRefused(f"{source.description}: holds {name!r} more than once: keep one of them")
    accepted = done - counts.total()
    remarked = tuple(
        RemarkCount(remark=name, count=count, images=accepted, ids=tuple(remark_ids[name]))
        for name, count in sorted(remark_counts.items())
    )
    return Intake(
        names,
        shapes.pop() if len(shapes) == 1 else None,
        rejected,
        remarked,
        passed_over[0] if passed_over else None,
    )


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
            raise DataRefused(f"{source.description}: at least 2 classes are needed, found {sorted(found)}")
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

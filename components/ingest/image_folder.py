"""Image folders: {train,test}/<class>/*, {train,val,test}/<class>/* or <class>/*, packed or not."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from components.ingest.errors import DataRefused
from components.ingest.files import Entry, entries, listing
from components.ingest.images import MAX_BYTES
from components.ingest.source import SPLITS, Progress, Record, Rejected, Source


class _Place(NamedTuple):
    top: str  # the one folder around all, or ""
    split: str | None
    class_name: str

    @property
    def layout(self) -> tuple[str, bool]:
        return self.top, self.split is not None


def open_folder(path: Path, description: str, progress: Progress, class_names: tuple[str, ...] | None = None) -> Source:
    """An image folder, or a tar or zip archive of one; tar plain or packed with gzip, bzip2 or xz.

    All may lie in one more folder. `class_names`: the classes it must have, in index order.
    """
    sha256, files = listing(path, progress)
    return Source(description, sha256, _reader(path, progress), class_names, files)


def _reader(path: Path, progress: Progress) -> Callable[[], Iterator[Record | Rejected]]:
    return lambda: records(path, entries(path, progress))


def records(root: Path, found: Iterable[Entry]) -> Iterator[Record | Rejected]:
    """The images among the entries of `root`.

    Raises DataRefused when two entries do not fit one layout, or a class folder holds no file.
    """
    first: tuple[str, _Place] | None = None
    folders: set[_Place] = set()
    filled: set[_Place] = set()
    for path, data in found:
        place = _place(path)
        if path.endswith("/"):
            if place:
                folders.add(place)
            continue
        id = path.encode("utf-8", "surrogateescape")
        if place is None:
            yield Rejected(id, "not in a class folder")
            continue
        first = first or (path, place)
        if place.layout != first[1].layout:
            raise DataRefused(
                f"{root}: {first[0]!r} and {path!r} do not fit one layout: use {{train,test}}/<class>/<file>, "
                "{train,val,test}/<class>/<file> or <class>/<file>, in at most one folder more"
            )
        filled.add(place)
        if data is None:
            yield Rejected(id, f"larger than {MAX_BYTES:,} bytes", place.class_name)
        else:
            yield Record(place.split, place.class_name, id, data)
    if first is None:
        raise DataRefused(f"{root}: holds no image in a class folder; expected train/<class>/<file> or <class>/<file>")
    empty = sorted("/".join(filter(None, p)) for p in folders - filled if p.layout == first[1].layout)
    if empty:
        raise DataRefused(f"{root}: class folder {empty[0]!r} is empty: fill it, or remove the class everywhere")


def _place(path: str) -> _Place | None:
    """Where a file lies; for a folder (final "/") where a file in it would."""
    match path.split("/"):
        case [split, name, _] if split in SPLITS:
            return _Place("", split, name)
        case [top, split, name, _] if split in SPLITS:
            return _Place(top, split, name)
        case [name, _] if name not in SPLITS:
            return _Place("", None, name)
        case [top, name, _] if name not in SPLITS:
            return _Place(top, None, name)
    return None

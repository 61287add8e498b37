"""Image folders, plain or in an archive: {train,test}/<class>/*, {train,val,test}/<class>/* or <class>/*."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components.data.ingest.entry import Entry
from components.data.ingest.files import entries, listing
from components.data.ingest.images import MAX_BYTES
from components.data.ingest.source import SPLITS, Progress, Record, RejectedRecord, Source, normalize_name
from components.errors import DataRefused

# Files that an operating system leaves in any folder, and files that describe a data set and lie beside its images.
_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"}
_NOTICES = {"authors", "changelog", "citation", "copying", "licence", "license", "makefile", "notice", "readme"}
_CHECKSUMS = {"md5sums", "sha256sums", ".md5", ".sha1", ".sha256"}
_DOCUMENTS = {".bib", ".doc", ".docx", ".htm", ".html", ".md", ".odt", ".pdf", ".rst", ".rtf", ".tex", ".txt"}
_LINKS = {".lnk", ".url"}
_SETTINGS = {".cff", ".cfg", ".ini", ".json", ".toml", ".xml", ".yaml", ".yml"}
_SOFTWARE = {".ipynb", ".log", ".pkl", ".py", ".sh"}
_TABLES = {".csv", ".jsonl", ".lst", ".mat", ".parquet", ".tsv", ".xls", ".xlsx"}
_BESIDE_IMAGES = _NOTICES | _CHECKSUMS | _DOCUMENTS | _LINKS | _SETTINGS | _SOFTWARE | _TABLES
_DEEPEST_CLASS = 3  # folders, in <top>/<split>/<class>


class _Place(NamedTuple):
    top: str  # the one folder around all, or ""
    split: str | None
    class_name: str

    @property
    def layout(self) -> tuple[str, bool]:
        return self.top, self.split is not None

    @property
    def folder(self) -> str:
        return "/".join(filter(None, self))


def open_folder(path: Path, description: str, progress: Progress, class_names: tuple[str, ...] | None = None) -> Source:
    """An image folder, or a tar or zip archive of one; tar plain or packed with gzip, bzip2 or xz.

    All may lie in one more folder. `class_names`: the classes it must have, in index order.
    """
    sha256, files = listing(path, progress)
    return Source(description, sha256, _reader(path, progress), class_names, files)


def _reader(path: Path, progress: Progress) -> Callable[[], Iterator[Record | RejectedRecord]]:
    return lambda: records(path, entries(path, progress))


def records(root: Path, found: Iterable[Entry]) -> Iterator[Record | RejectedRecord]:
    """The images among the entries of `root`.

    Raises DataRefused when two entries do not fit one layout, a folder has the name of a split but is none, or a class
    folder holds no image.
    """
    layout = _Layout(root)
    waiting: list[Entry] = []  # files that describe a data set or lie in a class folder: an image will tell
    for path, data in found:
        folder, _, file = path.rpartition("/")
        if not file:
            layout.add_folder(folder)
        elif file.casefold() in _OF_SYSTEMS:
            yield _passed_over(path)
        elif not _describes(file):
            layout.add_image(path)
            yield _record(path, data)
        elif layout.is_known:
            yield _record(path, data) if layout.has_class(folder) else _passed_over(path)
        else:
            waiting.append(Entry(path, data))
    layout.refuse_empty_classes()
    for path, data in waiting:
        yield _record(path, data) if layout.has_class(path.rpartition("/")[0]) else _passed_over(path)


def _record(path: str, data: bytes | None) -> Record | RejectedRecord:
    id, folder = path.encode("utf-8", "surrogateescape"), path.rpartition("/")[0]
    place = _place(folder)
    if place is None and folder.count("/") + 1 >= _DEEPEST_CLASS:
        return RejectedRecord(id, "in a subfolder of a class folder, which is not read")
    if place is None:
        return RejectedRecord(id, "not in a class folder")
    if data is None:
        return RejectedRecord(id, f"larger than {MAX_BYTES:,} bytes", place.class_name)
    return Record(place.split, place.class_name, id, data)


def _passed_over(path: str) -> RejectedRecord:
    return RejectedRecord(path.encode("utf-8", "surrogateescape"), "not an image file", passed_over=True)


def _describes(file: str) -> bool:
    """Tell whether a file is by its name no image, but a part of a data set."""
    name = file.casefold()
    return name in _BESIDE_IMAGES or PurePosixPath(name).suffix in _BESIDE_IMAGES


class _Layout:
    """Sees all paths of a source, and refuses those that do not fit together. Each method raises DataRefused."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._first: tuple[str, _Place] | None = None
        self._folders: set[_Place] = set()
        self._filled: set[_Place] = set()
        self._outside: dict[str, str] = {}  # folders that are no class folders, each with a file in it
        self._unclear: set[str] = set()  # folders with the name of a split, at the place of a split or a class

    @property
    def is_known(self) -> bool:
        return self._first is not None

    def has_class(self, folder: str) -> bool:
        """Tell whether a folder is a class folder of the layout, which is known."""
        place = _place(folder)
        return place is not None and self._first is not None and place.layout == self._first[1].layout

    def add_folder(self, folder: str) -> None:
        if place := _place(folder):
            self._folders.add(place)
        else:
            self._refuse_split_among_classes(folder)

    def add_image(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        place = _place(folder)
        if place in self._filled:
            return
        self._refuse_like_split(folder)
        if place is None:
            if folder not in self._outside:
                self._outside[folder] = path
                self._refuse_split_among_classes(folder)
            return
        self._filled.add(place)
        if self._first is None:
            self._first = path, place
            for unclear in list(self._unclear):
                self._refuse_split_among_classes(unclear)
        if place.layout != self._first[1].layout:
            raise DataRefused(
                f"{self._root}: {self._first[0]!r} and {path!r} do not fit one layout: use "
                "{train,test}/<class>/<file>, {train,val,test}/<class>/<file> or <class>/<file>, in at most one "
                "folder more; subfolders of a class folder are not read"
            )

    def refuse_empty_classes(self) -> None:
        if self._first is None:
            deep = next((path for path in self._outside.values() if path.count("/") >= _DEEPEST_CLASS), None)
            hint = "" if deep is None else f"; {deep!r} lies too deep: subfolders of a class folder are not read"
            raise DataRefused(
                f"{self._root}: holds no image in a class folder; expected train/<class>/<file> or <class>/<file>{hint}"
            )
        layout, depth = self._first[1].layout, self._first[1].folder.count("/") + 1
        nested: dict[_Place, str] = {}
        for folder, path in self._outside.items():
            if place := _place("/".join(folder.split("/")[:depth])):
                nested.setdefault(place, path)
        empty = [
            place for place in self._folders | nested.keys() if place.layout == layout and place not in self._filled
        ]
        if not empty:
            return
        first = min(empty, key=lambda place: place.folder)
        if first in nested:
            raise DataRefused(
                f"{self._root}: class folder {first.folder!r} holds images in subfolders alone, for example "
                f"{nested[first]!r}, and subfolders are not read: move the images into {first.folder!r} itself, or "
                "replace it by its subfolders, each a class of its own"
            )
        raise DataRefused(
            f"{self._root}: class folder {first.folder!r} is empty of images: fill it, or remove the class everywhere"
        )

    def _refuse_like_split(self, folder: str) -> None:
        """Refuses `Train` or `validation` where `train` or `val` would be a split."""
        names = folder.split("/")
        for depth in range(1 if names[0] in SPLITS else 2):
            if (
                depth < len(names)
                and names[depth] not in SPLITS
                and normalize_name(names[depth]) in (*SPLITS, "validation")
            ):
                split = normalize_name(names[depth]).removesuffix("idation")
                raise DataRefused(self._which_is_meant("/".join(names[: depth + 1]), split))

    def _refuse_split_among_classes(self, folder: str) -> None:
        """Refuses a folder `train` beside class folders, whose images would belong to no class."""
        top, _, name = folder.rpartition("/")
        if name in SPLITS and "/" not in top:
            self._unclear.add(folder)
            if self._first and self._first[1].layout == (top, False):
                raise DataRefused(self._which_is_meant(folder, name))

    def _which_is_meant(self, folder: str, split: str) -> str:
        return (
            f"{self._root}: folder {folder!r} has the name of a split. If it is a class, or a folder around all, give "
            f"it another name. If it is the split, name it {split!r}, and sort every image into "
            "{train,test}/<class>/ or {train,val,test}/<class>/"
        )


def _place(folder: str) -> _Place | None:
    """Where the files of a folder belong."""
    match folder.split("/"):
        case [""]:
            return None
        case [split, name] if split in SPLITS:
            return _Place("", split, name)
        case [top, split, name] if split in SPLITS:
            return _Place(top, split, name)
        case [name] if name not in SPLITS:
            return _Place("", None, name)
        case [top, name] if name not in SPLITS:
            return _Place(top, None, name)
    return None

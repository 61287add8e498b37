"""Reader of image folders and of archives of them.

The layout is {train,test}/<class>/*, {train,val,test}/<class>/* or <class>/*, in at most one outer folder. The folder
`val` may also be named `validation`, as in data sets of Hugging Face.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components.data.ingest.entry import Entry
from components.data.ingest.file_parts import FileParts, HashedFile
from components.data.ingest.files import entries, folder_paths, listing
from components.data.ingest.images import MAX_BYTES
from components.data.ingest.source import SPLIT_FOLDERS, Progress, Record, RejectedRecord, Source, normalize_name
from components.errors import DataRefused

# Files that operating systems create in any folder.
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"}
# Names and endings of files that accompany the images of a data set.
_NOTICES = {"authors", "changelog", "citation", "copying", "licence", "license", "makefile", "notice", "readme"}
_CHECKSUMS = {"md5sums", "sha256sums", ".md5", ".sha1", ".sha256"}
_DOCUMENTS = {".bib", ".doc", ".docx", ".htm", ".html", ".md", ".odt", ".pdf", ".rst", ".rtf", ".tex", ".txt"}
_LINKS = {".lnk", ".url"}
_SETTINGS = {".cff", ".cfg", ".ini", ".json", ".toml", ".xml", ".yaml", ".yml"}
_SOFTWARE = {".ipynb", ".log", ".pkl", ".py", ".sh"}
_TABLES = {".csv", ".jsonl", ".lst", ".mat", ".parquet", ".tsv", ".xls", ".xlsx"}
_BESIDE_IMAGES = _NOTICES | _CHECKSUMS | _DOCUMENTS | _LINKS | _SETTINGS | _SOFTWARE | _TABLES
_DEEPEST_CLASS = 3  # folders, as in <top>/<split>/<class>


class _Place(NamedTuple):
    """Position of a class folder in the layout."""

    top: str  # the outer folder, or ""
    split: str | None  # name of the split's folder
    class_name: str

    @property
    def layout(self) -> tuple[str, bool]:
        return self.top, self.split is not None

    @property
    def folder(self) -> str:
        return "/".join(filter(None, self))


def open_folder(path: Path, description: str, progress: Progress, class_names: tuple[str, ...] | None = None) -> Source:
    """Open an image folder, or an archive of an image folder.

    Args:
        path: a folder, a zip archive, or a tar archive, which may be compressed with gzip, bzip2 or xz.
        description: name of the source in the manifest.
        progress: called with the progress of hashing and reading.
        class_names: the classes that the source must have, in index order; None to take the names of the folders.

    Returns:
        The source, whose methods raise DataRefused if it contains a link or special file, or is a damaged archive.
    """
    parts = FileParts(path.absolute(), functools.partial(_plan, path)) if path.is_dir() else None
    return Source(description, lambda: listing(path, progress), _reader(path, progress), class_names, parts=parts)


def _reader(path: Path, progress: Progress) -> Callable[[], Iterator[Record | RejectedRecord]]:
    return lambda: records(path, entries(path, progress))


def _plan(root: Path) -> Iterator[HashedFile | Record | RejectedRecord]:
    """Yield the files and the records of a folder, see `FileParts`. The images are not read."""
    waiting: list[HashedFile] = []

    def unread() -> Iterator[Entry]:
        for path in folder_paths(root):
            is_folder = path.endswith("/")
            if not is_folder:
                waiting.append(HashedFile(path))
            yield Entry(path, None if is_folder else b"")

    for record in records(root, unread()):
        yield from waiting
        waiting.clear()
        yield record
    yield from waiting


def records(root: Path, items: Iterable[Entry]) -> Iterator[Record | RejectedRecord]:
    """Yield the images among the entries of a source, and a rejected record for every other file.

    Args:
        root: path of the source, for messages.
        items: the entries of the source.

    Raises:
        DataRefused: if entries do not fit the same layout, the name of a folder could be that of a split, or a class
            folder holds no image.
    """
    layout = _Layout(root)
    # Files that seem to accompany the images. In a class folder they are checked like images, but the first image must
    # show which folders are class folders.
    undecided: list[Entry] = []
    for path, data in items:
        folder, _, file = path.rpartition("/")
        if not file:
            layout.add_folder(folder)
        elif file.casefold() in _SYSTEM_FILES:
            yield _passed_over(path)
        elif not _accompanies_images(file):
            layout.add_image(path)
            yield _record(path, data)
        elif layout.is_known:
            yield _record(path, data) if layout.has_class(folder) else _passed_over(path)
        else:
            undecided.append(Entry(path, data))
    layout.refuse_empty_classes()
    for path, data in undecided:
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
    return Record(place.split and SPLIT_FOLDERS[place.split], place.class_name, id, data)


def _passed_over(path: str) -> RejectedRecord:
    return RejectedRecord(path.encode("utf-8", "surrogateescape"), "not an image file", passed_over=True)


def _accompanies_images(file: str) -> bool:
    """Return whether the name of a file says that it is not an image but accompanies the images of a data set."""
    name = file.casefold()
    return name in _BESIDE_IMAGES or PurePosixPath(name).suffix in _BESIDE_IMAGES


class _Layout:
    """Layout of a source, which is checked as its paths become known.

    Methods that add or check paths raise DataRefused if the paths do not fit the same layout.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._first: tuple[str, _Place] | None = None
        self._folders: set[_Place] = set()
        self._filled: set[_Place] = set()
        self._outside: dict[str, str] = {}  # folders that are not class folders, each with one of its files
        self._unclear: set[str] = set()  # folders named like a split, in the position of a split or a class

    @property
    def is_known(self) -> bool:
        """True once an image in a class folder has determined the layout."""
        return self._first is not None

    def has_class(self, folder: str) -> bool:
        """Return whether a folder is a class folder of the layout, which must be known."""
        place = _place(folder)
        return place is not None and self._first is not None and place.layout == self._first[1].layout

    def add_folder(self, folder: str) -> None:
        """Add the path of a folder."""
        if place := _place(folder):
            self._folders.add(place)
        else:
            self._refuse_split_among_classes(folder)

    def add_image(self, path: str) -> None:
        """Add the path of a file that may be an image."""
        folder = path.rpartition("/")[0]
        place = _place(folder)
        if place in self._filled:
            return
        self._refuse_misspelled_split(folder)
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
                "{train,test}/<class>/<file>, {train,val,test}/<class>/<file> or <class>/<file>, in at most one outer "
                "folder; subfolders of a class folder are not read"
            )

    def refuse_empty_classes(self) -> None:
        """Raise DataRefused if there is no class folder, or a class folder without an image."""
        if self._first is None:
            deep = next((path for path in self._outside.values() if path.count("/") >= _DEEPEST_CLASS), None)
            hint = "" if deep is None else f"; {deep!r} is nested too deeply: subfolders of a class folder are not read"
            raise DataRefused(
                f"{self._root}: holds no image in a class folder; expected train/<class>/<file> or <class>/<file>, or "
                f"a table with the columns path and label as --source{hint}"
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
                f"{self._root}: class folder {first.folder!r} holds images only in subfolders, for example "
                f"{nested[first]!r}, and subfolders are not read: move the images into {first.folder!r} itself, or "
                "replace the folder with its subfolders, each of which becomes a class"
            )
        raise DataRefused(
            f"{self._root}: class folder {first.folder!r} holds no images: add images, or remove the class from every "
            "split"
        )

    def _refuse_misspelled_split(self, folder: str) -> None:
        """Raise DataRefused for a folder like `Train` or `Validation` in the position of a split."""
        names = folder.split("/")
        for depth in range(1 if names[0] in SPLIT_FOLDERS else 2):
            if (
                depth < len(names)
                and names[depth] not in SPLIT_FOLDERS
                and (split := normalize_name(names[depth])) in SPLIT_FOLDERS
            ):
                raise DataRefused(self._ambiguity("/".join(names[: depth + 1]), split))

    def _refuse_split_among_classes(self, folder: str) -> None:
        """Raise DataRefused for a folder like `train` beside class folders, because its images have no class."""
        top, _, name = folder.rpartition("/")
        if name in SPLIT_FOLDERS and "/" not in top:
            self._unclear.add(folder)
            if self._first and self._first[1].layout == (top, False):
                raise DataRefused(self._ambiguity(folder, name))

    def _ambiguity(self, folder: str, split: str) -> str:
        return (
            f"{self._root}: folder {folder!r} has the name of a split. If it is a class or the outer folder, rename "
            f"it. If it is the split, name it {split!r}, and move every image into {{train,test}}/<class>/ or "
            "{train,val,test}/<class>/"
        )


def _place(folder: str) -> _Place | None:
    """Return the position of a class folder in the layout, or None if the folder is not a class folder."""
    match folder.split("/"):
        case [""]:
            return None
        case [split, name] if split in SPLIT_FOLDERS:
            return _Place("", split, name)
        case [top, split, name] if split in SPLIT_FOLDERS:
            return _Place(top, split, name)
        case [name] if name not in SPLIT_FOLDERS:
            return _Place("", None, name)
        case [top, name] if name not in SPLIT_FOLDERS:
            return _Place(top, None, name)
    return None

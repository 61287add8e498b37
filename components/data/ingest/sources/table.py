"""Tables of images: a CSV, TSV, JSON Lines or Parquet file with the path and the class of each image.

The columns are `path` (or `file_name`), `label` and, optionally, `split`. A folder may also hold such a table as
`metadata.csv`, `.jsonl` or `.parquet`, or one in the folder of each split. This is the layout of Hugging Face's
`imagefolder`.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components.data.ingest import rows, safe_files
from components.data.ingest.file_parts import FileParts, HashedFile, image_file_digest, with_image
from components.data.ingest.files import digest_line
from components.data.ingest.source import (
    SPLIT_FOLDERS,
    Listing,
    Progress,
    Record,
    RejectedRecord,
    Source,
    split_named,
)
from components.errors import DataRefused

_METADATA = tuple(f"metadata{ending}" for ending in (".csv", ".jsonl", ".parquet"))
_PATH, _LABEL, _SPLIT = ("path", "file_name"), ("label",), ("split",)
_MISSING = "no such file: correct its path in the table, or remove the row"
_NO_PATH = "no path: enter it in the table, or remove the row"
_NO_LABEL = "no label of 1 to 255 bytes: enter it in the table, or remove the row"


class _Table(NamedTuple):
    """Table, and the names of its columns."""

    file: Path
    split: str | None  # split of all rows, if the table has no column `split`
    path_column: str
    label_column: str
    split_column: str | None


def open_source(path: Path, description: str, progress: Progress) -> Source | None:
    """Open a table, or a folder with `metadata` tables.

    Args:
        path: the table or the folder.
        description: name of the source in the manifest.
        progress: called with the progress of hashing.

    Returns:
        The source, or None if the path is neither a table nor a folder with such tables.

    Raises:
        DataRefused: if a table cannot be used.
    """
    if path.is_file():
        if rows.ending(path) not in rows.ENDINGS:
            return None
        root, tables = path.parent, [_table(path)]
    else:
        root, tables = path, _metadata(path)
        if not tables:
            return None
    return Source(
        description,
        lambda: _listing(root, tables, progress),
        lambda: _records(root, tables),
        parts=FileParts(root.absolute(), functools.partial(_plan, root, tables), _MISSING),
    )


def _metadata(folder: Path) -> list[_Table]:
    """Return the tables of a folder, or an empty list if it has none with the classes of the images."""
    found = []
    for split in ("", *SPLIT_FOLDERS):
        present = [name for name in _METADATA if os.path.lexists(folder / split / name)]
        if len(present) > 1:
            raise DataRefused(f"{folder / split}: holds {' and '.join(present)}: keep one of them")
        if present and split:
            safe_files.check_folder(folder / split)
        found += [(folder / split / name, SPLIT_FOLDERS.get(split)) for name in present]
    if len(found) > 1 and found[0][1] is None:
        raise DataRefused(f"{folder}: holds {found[0][0].name} itself and in the folder of a split: keep one of them")
    for file, _ in found:
        columns = rows.columns(file)
        if not _find(columns, _PATH) or not _find(columns, _LABEL):
            return []  # other metadata of images, whose classes are the names of folders
    return [_table(file, split) for file, split in found]


def _table(file: Path, split: str | None = None) -> _Table:
    columns = rows.columns(file)
    path, label = _find(columns, _PATH), _find(columns, _LABEL)
    if path is None or label is None:
        missing = "label" if path else "path"
        raise DataRefused(
            f"{file}: no column {missing!r}: it has {', '.join(map(repr, columns)) or 'no columns'}. Name the columns "
            "'path', 'label' and, if the source has splits, 'split'"
        )
    return _Table(file, split, path, label, _find(columns, _SPLIT))


def _find(columns: list[str], names: tuple[str, ...]) -> str | None:
    """Return the column that has one of the names, in upper or lower case, or None."""
    return next((column for name in names for column in columns if column.casefold() == name), None)


def _records(root: Path, tables: list[_Table]) -> Iterator[Record | RejectedRecord]:
    for record in _unread_records(root, tables):
        yield record if isinstance(record, RejectedRecord) else with_image(root, record, _MISSING)


def _listing(root: Path, tables: list[_Table], progress: Progress) -> Listing:
    """Return the digest of the tables and of every file that they name, and the number of rows."""
    total, count = hashlib.sha256(), 0

    def alive(_done: int = 0) -> None:
        progress("files hashed", count, None)

    alive()
    for step in _plan(root, tables):
        if isinstance(step, HashedFile):
            digest = step.digest or image_file_digest(root / step.path, may_be_missing=True, alive=alive)
            total.update(digest_line(digest, step.path))
        else:
            count += 1
        alive()
    return Listing(total.hexdigest(), count)


def _plan(root: Path, tables: list[_Table]) -> Iterator[HashedFile | Record | RejectedRecord]:
    """Yield the files and the records of the tables, see `FileParts`. The tables are hashed; no image is read."""
    for table in tables:
        yield HashedFile(str(table.file.relative_to(root)), safe_files.file_digest(table.file))
    is_empty = True
    for record in _unread_records(root, tables):
        is_empty = False
        if isinstance(record, Record):
            yield HashedFile(record.id.decode("utf-8", "surrogateescape"))
        yield record
    if is_empty:
        raise DataRefused(f"{tables[0].file}: has no rows: add a row for each image")


def _unread_records(root: Path, tables: list[_Table]) -> Iterator[Record | RejectedRecord]:
    """Yield a record for each row, without its image. The id of a record is the path of its file below `root`."""
    first: tuple[str, bool] | None = None  # place of the first row with a path, and whether that row has a split
    for table in tables:
        inside = _locator(root, table.file)
        columns = [name for name in (table.path_column, table.label_column, table.split_column) if name is not None]
        for where, cells in rows.rows(table.file, columns):
            place = f"{table.file}: {where}"
            cell = cells.get(table.path_column)
            if not isinstance(cell, str) or not _is_path(cell):
                yield RejectedRecord(f"{table.file.name}: {where}".encode(), _NO_PATH)
                continue
            id = inside(cell, where)
            split = _split(table, cells.get(table.split_column or ""), id, place)
            if first is None:
                first = place, split is not None
            elif first[1] != (split is not None):
                with_split, without = (first[0], place) if first[1] else (place, first[0])
                raise DataRefused(
                    f"{without} has no split, but {with_split.rpartition(': ')[2]} has one: name the split of every "
                    "image in a column 'split', or of none"
                )
            origin = id.encode("utf-8", "surrogateescape")
            if (name := rows.class_name(cells.get(table.label_column))) is None:
                yield RejectedRecord(origin, _NO_LABEL)
            else:
                yield Record(split, name, origin, b"")


def _is_path(cell: str) -> bool:
    try:
        return bool(cell.strip("/. ")) and "\0" not in cell and bool(os.fsencode(cell))
    except UnicodeEncodeError:  # JSON can hold lone surrogates, which the name of a file cannot
        return False


def _split(table: _Table, cell: object, id: str, place: str) -> str | None:
    """Return the split of an image: from its row, its table, or the folder at the beginning of its path."""
    if table.split_column is None:
        return table.split or SPLIT_FOLDERS.get(id.partition("/")[0])
    name = "" if cell is None else str(cell).strip()
    if not name:
        return None
    if (split := split_named(name)) is None:
        raise DataRefused(f"{place}: unknown split {name!r}: use train, val or test")
    return split


def _locator(root: Path, table: Path) -> Callable[[str, str], str]:
    """Return a function that turns the path in a cell into a path relative to the source.

    A table may come from an untrusted place, so no path may lead out of the folder of its table: neither as an absolute
    path, nor by "..", nor through a link.
    """
    folder = table.parent
    real = root.resolve() / folder.relative_to(root)  # only the path that the user named may be a link

    @functools.lru_cache(1024)  # images of a class are next to each other
    def leads_out(parent: PurePosixPath) -> bool:
        return not Path(os.path.realpath(real / parent)).is_relative_to(real)

    def inside(cell: str, where: str) -> str:
        path = PurePosixPath(cell)
        for absolute in (folder.absolute(), real):
            if path.is_relative_to(absolute):
                path = path.relative_to(absolute)
        if path.is_absolute() or ".." in path.parts or leads_out(path.parent):
            raise DataRefused(
                f"{table}: {where}: path {cell!r} leads out of the folder of the table: put the table into a folder "
                "that holds all images, and write paths relative to it"
            )
        if "\\" in cell and not os.path.lexists(folder / path):
            raise DataRefused(f"{table}: {where}: path {cell!r} has backslashes: write it with forward slashes")
        return (folder.relative_to(root) / path).as_posix()

    return inside

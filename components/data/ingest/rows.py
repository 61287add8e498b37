"""Reader of tables: CSV, TSV, JSON Lines and Parquet files with a row for each image.

A table is read as a stream, because it may have millions of rows.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from components.data.ingest import safe_files
from components.errors import DataRefused

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")

_MAX_LINE = 2**20  # bytes
_MAX_ROW_GROUP = 2**30  # bytes, uncompressed; pyarrow needs up to 2.5 times as much memory to read a row group
_BATCH_BYTES = 32 * 2**20  # bytes of a row group that are decoded at a time
_MAX_BATCH = 1024  # rows
_MAX_LABEL = 255  # bytes, as in the name of a folder
_WHOLE = re.compile(r"(-?[0-9]+)\.0")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class Row(NamedTuple):
    """Row of a table."""

    where: str  # for messages, such as "line 2"
    cells: dict[str, Any]  # by column; JSON Lines and Parquet have values of any type


def ending(path: Path) -> str:
    """Return the ending of a file's name in lower case, such as ".csv"."""
    return path.suffix.casefold()


def columns(path: Path) -> list[str]:
    """Return the names of a table's columns. Those of a JSON Lines file are the keys of its first row.

    Raises:
        DataRefused: if the table cannot be read.
    """
    if ending(path) == ".parquet":
        with open_parquet(path) as table:
            return list(table.schema_arrow.names)
    if ending(path) == ".jsonl":
        first = next(_json_rows(path), None)
        return [] if first is None else list(first.cells)
    _, header = next(_csv_cells(path), (0, []))
    return header


def rows(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        path: the table, whose name has one of ENDINGS.
        wanted: names of the columns to read. Parquet does not read the others.

    Raises:
        DataRefused: if the table cannot be read to its end.
    """
    if ending(path) == ".parquet":
        return parquet_rows(path, wanted)
    return _json_rows(path) if ending(path) == ".jsonl" else _csv_rows(path)


def cell_text(value: object) -> str:
    """Return the text or whole number that a cell holds, without spaces around it; empty if it holds neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes whole numbers as floats if a column has empty cells
    if not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    match = _WHOLE.fullmatch(text)  # the same float in a CSV or text file
    return match[1] if match else text


def class_name(value: object) -> str | None:
    """Return the name of the class that a cell holds, or None if the cell is empty or holds no usable name."""
    name = cell_text(value)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # JSON can hold lone surrogates
        return None
    return name if 0 < size <= _MAX_LABEL else None


def _csv_rows(path: Path) -> Iterator[Row]:
    cells = _csv_cells(path)
    _, header = next(cells, (0, []))
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataRefused(f"{path}: the header has column {repeated[0]!r} more than once: rename one")
    for number, values in cells:
        if len(values) != len(header):
            raise DataRefused(
                f"{path}: line {number}: {len(values)} cells, but the header has {len(header)}: put cells that hold "
                "the delimiter into double quotes"
            )
        yield Row(f"line {number}", dict(zip(header, values, strict=True)))


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line, header first. Blank lines are skipped.

    The delimiter is the comma, semicolon or tab that is most frequent in the header. Only the header's cells are
    stripped: the name of a file may begin or end with a space.
    """
    with safe_files.open_file(path) as file:
        lines = _lines(path, file)
        header, blank = next(lines, ""), 0
        while header and not header.strip():
            header, blank = next(lines, ""), blank + 1
        reader = csv.reader(itertools.chain([header], lines), delimiter=max(",;\t", key=header.count), strict=True)
        try:
            for cells in reader:
                if cells and reader.line_num > 1:
                    yield blank + reader.line_num, cells
                elif cells:
                    yield blank + reader.line_num, [cell.strip() for cell in cells]
        except csv.Error as error:
            raise DataRefused(
                f"{path}: line {blank + reader.line_num}: not CSV ({error}): save the table as CSV in UTF-8, with "
                "double quotes around cells that hold the delimiter, a quote or a line break"
            ) from error


def _json_rows(path: Path) -> Iterator[Row]:
    with safe_files.open_file(path) as file:
        for number, line in enumerate(_lines(path, file), start=1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataRefused(
                    f"{path}: line {number}: not JSON ({error}): write one JSON object per line"
                ) from error
            if not isinstance(cells, dict):
                raise DataRefused(f"{path}: line {number}: not a JSON object: write one JSON object per line")
            yield Row(f"line {number}", cells)


def _lines(path: Path, file: io.BufferedReader) -> Iterator[str]:
    if file.peek(2).startswith(_UTF_16):
        raise DataRefused(f"{path}: encoded in UTF-16: save it in UTF-8 (`iconv -f utf-16 -t utf-8`)")
    number = 0
    while data := file.readline(_MAX_LINE + 1):
        number += 1
        if len(data) > _MAX_LINE:
            raise DataRefused(f"{path}: line {number}: more than {_MAX_LINE:,} bytes: end every row with a line break")
        try:
            line = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataRefused(
                f"{path}: line {number}: byte {data[error.start]:#04x} is not UTF-8: save the table in UTF-8 (for a "
                "file from a Western European Windows: `iconv -f windows-1252 -t utf-8`)"
            ) from error
        yield line.removeprefix("\ufeff") if number == 1 else line


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file as a `pyarrow.parquet.ParquetFile`.

    Raises:
        DataRefused: if the file is damaged, here or while it is read in the context.
    """
    import pyarrow as pa
    import pyarrow.parquet

    with safe_files.open_file(path) as file:
        try:
            # Without these buffers, pyarrow would read a whole column at once. With them it still reads whole pages,
            # and some writers put all images of a row group into one page.
            yield pyarrow.parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError, KeyError, UnicodeDecodeError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk: an OSError that pyarrow itself raises has no number
            raise DataRefused(f"{path}: cut, damaged or not a Parquet file ({error}): copy it again") from error


def parquet_rows(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    """Yield the rows of a Parquet file.

    Args:
        path: the file.
        wanted: names of the columns to read.

    Raises:
        DataRefused: if the file is damaged, or a row group is too large.
    """
    number = 0
    with open_parquet(path) as table:
        for group in range(table.num_row_groups):
            metadata = table.metadata.row_group(group)
            if metadata.total_byte_size > _MAX_ROW_GROUP:
                raise DataRefused(
                    f"{path}: row group {group} has {metadata.total_byte_size:,} bytes, at most {_MAX_ROW_GROUP:,} are "
                    "read: write the file with smaller row groups, such as 100 images each"
                )
            row_bytes = metadata.total_byte_size // max(metadata.num_rows, 1)
            size = min(max(_BATCH_BYTES // max(row_bytes, 1), 1), _MAX_BATCH)
            for batch in table.iter_batches(size, row_groups=[group], columns=list(wanted)):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", cells)

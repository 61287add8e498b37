"""Hugging Face data sets in Parquet files, which hold the encoded images themselves.

An image is a struct of `bytes` and `path`. The names of the classes are in the metadata of the Parquet schema.
"""

import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from components.data.ingest import rows
from components.data.ingest.files import files_digest
from components.data.ingest.images import MAX_BYTES, TOO_LARGE
from components.data.ingest.shards import Shard, ShardParts, find_shards
from components.data.ingest.source import Listing, Progress, Record, RejectedRecord, Source
from components.errors import DataRefused

_NO_IMAGE = "no image in its row"
_NO_LABEL = "no label in its row, or a label that has no name"


class _Columns(NamedTuple):
    """Columns of a data set."""

    image: str
    label: str
    class_names: tuple[str, ...] | None  # None if the labels are the names themselves


def open_source(path: Path, description: str, progress: Progress) -> Source | None:
    """Open a Parquet file with images, or a folder of such files as downloaded from the hub.

    Args:
        path: the file or the folder.
        description: name of the source in the manifest.
        progress: called with the progress of hashing.

    Returns:
        The source, or None if the path is neither such a file nor such a folder.

    Raises:
        DataRefused: if a file is damaged, if its columns of images or labels are ambiguous, or if the files have
            different columns or classes.
    """
    if path.is_file():
        root, shards = path.parent, [Shard(path.name, None)] if rows.ending(path) == ".parquet" else []
    else:
        root, shards = path, find_shards(path, (".parquet",))
    if not shards:
        return None
    columns, count = None, 0
    for shard in shards:
        with rows.open_parquet(root / shard.path) as table:
            file_columns = _columns(root / shard.path, table.schema_arrow)
            count += table.metadata.num_rows
        if file_columns is None:
            return None  # a table of paths
        if columns not in (None, file_columns):
            raise DataRefused(
                f"{root / shard.path}: its columns or classes differ from those of {shards[0].path}: prepare it "
                "separately"
            )
        columns = file_columns
    assert columns is not None
    files = tuple(shard.path for shard in shards)
    read = functools.partial(_records, columns)
    return Source(
        description,
        lambda: Listing(files_digest(root, files, progress), count),
        lambda: itertools.chain.from_iterable(read(root, shard) for shard in shards),
        columns.class_names,
        parts=ShardParts(root.absolute(), files, tuple(shards), read),
    )


def _records(columns: _Columns, root: Path, shard: Shard) -> Iterator[Record | RejectedRecord]:
    for number, (_, cells) in enumerate(rows.parquet_rows(root / shard.path, [columns.image, columns.label])):
        id = f"{shard.path}:{number}".encode("utf-8", "surrogateescape")
        image = (cells[columns.image] or {}).get("bytes")
        label = cells[columns.label]
        name = rows.class_name(label)
        if columns.class_names is not None:
            has_name = isinstance(label, int) and 0 <= label < len(columns.class_names)
            name = columns.class_names[label] if has_name else None
        if name is None:
            yield RejectedRecord(id, _NO_LABEL)
        elif not image:
            yield RejectedRecord(id, _NO_IMAGE, name)
        elif len(image) > MAX_BYTES:
            yield RejectedRecord(id, TOO_LARGE, name)
        else:
            yield Record(shard.split, name, id, image)


def _columns(path: Path, schema: Any) -> _Columns | None:
    """Return the columns of a Parquet schema, or None if it has no column of encoded images."""
    import pyarrow as pa

    images = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and (index := field.type.get_field_index("bytes")) >= 0
        and (pa.types.is_binary(field.type.field(index).type) or pa.types.is_large_binary(field.type.field(index).type))
    ]
    if not images:
        return None
    names = _class_names(path, schema.metadata or {})
    image = _choose_column(path, images, "image", "images")
    labels = [*names] or [name for name in schema.names if name in ("label", "labels")]
    label = _choose_column(path, labels, "label", "labels")
    if label not in schema.names:
        raise DataRefused(f"{path}: its metadata describe a column {label!r}, which is missing: write the file again")
    return _Columns(image, label, names.get(label))


def _choose_column(path: Path, candidates: list[str], usual: str, content: str) -> str:
    """Return the column with the usual name, or the only candidate."""
    if len(candidates) == 1 or usual in candidates:
        return usual if usual in candidates else candidates[0]
    columns = ", ".join(map(repr, candidates)) or "none"
    raise DataRefused(f"{path}: its columns of {content} are {columns}: name the column to use {usual!r}")


def _class_names(path: Path, metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each column of labels, as the library `datasets` writes them."""
    if b"huggingface" not in metadata:
        return {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        listed = {
            column: list(feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataRefused(f"{path}: its Hugging Face metadata are damaged ({error!r}): write the file again") from error
    names = {}
    for column, values in listed.items():
        found: dict[str, object] = {}  # values by name, in the order of the indices
        for value in values:
            name = rows.class_name(value) if isinstance(value, str) else None
            if name is None or name in found:
                problem = "is not text of 1 to 255 bytes" if name is None else "is listed twice"
                raise DataRefused(
                    f"{path}: class name {value!r:.50} of column {column!r} {problem}: write the file again with a "
                    "different name for each class"
                )
            found[name] = value
        names[column] = tuple(found)
    return names

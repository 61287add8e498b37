"""WebDataset: tar archives in which the files of a sample follow each other and have the same name up to its first dot.

    0001.jpg 0001.cls 0002.jpg 0002.cls ...

The class of a sample is in `.cls` (an index or a name), in the key `label` or `cls` of `.json`, or in `.txt`.
"""

import functools
import json
import re
from collections.abc import Iterator
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple

from components.data.ingest import rows, safe_files
from components.data.ingest.files import entries, files_digest, listing
from components.data.ingest.images import TOO_LARGE
from components.data.ingest.shards import Shard, ShardParts, find_shards
from components.data.ingest.source import Listing, Progress, Record, RejectedRecord, Source, no_progress
from components.errors import DataRefused

_ENDINGS = (".tar", ".tar.gz", ".tgz")
_NAMES_FILES = ("classnames.txt", "classes.txt")
_MAX_NAMES = 8 * 2**20  # bytes
_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "avif")
_LABELS = ("cls", "json", "txt")
_MAX_LABEL = 2**20  # bytes of a file with the label
_MAX_MEMBERS = 20  # members of an archive that are read to recognise its kind
_UNKNOWN_CLASS_FIX = "correct the labels, or list the classes of all labels in the file of class names"
_NO_IMAGE = "no image in its sample: the files of a sample must follow each other in the archive"
_IMAGES_AMBIGUOUS = "several images in its sample"
_NO_LABEL = "no label in its sample: add it as .cls, .txt, or as `label` in .json"
_UNKNOWN_LABEL = "a label that has no name in the file of class names"


class _Member(NamedTuple):
    """File of a sample."""

    key: str
    field: str  # ending without its first dot, in lower case
    data: bytes | None  # None if it is too large


def open_source(path: Path, description: str, progress: Progress) -> Source | None:
    """Open a tar archive in the layout of WebDataset, or a folder of such archives.

    A folder may hold the names of the classes in `classnames.txt` or `classes.txt`, one per line in the order of the
    indices.

    Args:
        path: the archive or the folder.
        description: name of the source in the manifest.
        progress: called with the progress of hashing.

    Returns:
        The source, or None if the path is neither such an archive nor such a folder.

    Raises:
        DataRefused: if the splits of the archives are ambiguous, or the file of class names is invalid.
    """
    if path.is_dir():
        root, shards = path, find_shards(path, _ENDINGS)
    else:
        root, shards = path.parent, [Shard(path.name, None)] if _is_webdataset(path) else []
    if not shards:
        return None
    names_file = next((root / name for name in _NAMES_FILES if path.is_dir() and (root / name).exists()), None)
    names = None if names_file is None else read_names(names_file)
    files = [shard.path for shard in shards] + ([] if names_file is None else [names_file.name])

    def listed() -> Listing:
        return Listing(files_digest(root, files, progress), None) if path.is_dir() else listing(path, progress)

    return Source(
        description,
        listed,
        lambda: chain.from_iterable(_records(names, progress, root, shard) for shard in shards),
        names,
        unknown_class_fix=_UNKNOWN_CLASS_FIX,
        # The digest of a single archive is not made of lines, and nothing can be read in parallel.
        parts=ShardParts(root.absolute(), tuple(files), tuple(shards), functools.partial(_records, names, no_progress))
        if path.is_dir()
        else None,
    )


def read_names(path: Path) -> tuple[str, ...]:
    """Return the names of the classes in a file with one name per line, in the order of their indices.

    Raises:
        DataRefused: if the file is not UTF-8 or is a link, or if a name is too long or listed twice.
    """
    try:
        lines = safe_files.read_bytes(path, _MAX_NAMES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataRefused(f"{path}: not UTF-8 (byte {error.start:,}): save it in UTF-8") from error
    names: dict[str, int] = {}  # line numbers by name
    for number, line in enumerate(lines, 1):
        if not (name := line.strip()):
            continue
        if rows.class_name(name) is None:
            size = len(name.encode())
            raise DataRefused(f"{path}: line {number:,}: {name!r:.50} has {size} bytes, the bound is 255: shorten it")
        if name in names:
            raise DataRefused(
                f"{path}: class {name!r} is in line {names[name]:,} and in line {number:,}: give every class a "
                "different name"
            )
        names[name] = number
    return tuple(names)


def _is_webdataset(archive: Path) -> bool:
    """Return whether an archive begins with a sample that cannot belong to an archive of an image folder."""
    try:
        files = [entry.path for entry in islice(entries(archive), _MAX_MEMBERS) if not entry.path.endswith("/")]
    except DataRefused:
        return False  # reported by the reader of image folders
    keys = [_split_name(path) for path in files]
    fields: dict[str, set[str]] = {}
    for key, field in filter(None, keys):
        fields.setdefault(key, set()).add(field)
    return any(
        found.intersection(_IMAGES) and ("cls" in found or ("/" not in key and found.intersection(_LABELS)))
        for key, found in fields.items()
    )


def _split_name(path: str) -> tuple[str, str] | None:
    """Return the key and the field of a file, which the first dot of its name separates, as WebDataset does."""
    match = re.match(r"((?:.*/|)[^.]+)[.]([^/]*)$", path, re.DOTALL)
    return (match[1], match[2].casefold()) if match else None


def _records(
    names: tuple[str, ...] | None, progress: Progress, root: Path, shard: Shard
) -> Iterator[Record | RejectedRecord]:
    for key, members in groupby(_members(root / shard.path, progress), key=lambda member: member.key):
        fields = {member.field: member.data for member in members}
        yield _record(shard, key, fields, names)


def _members(archive: Path, progress: Progress) -> Iterator[_Member]:
    """Yield the files of samples that may be the image or the label. The others are not kept in memory."""
    for path, data in entries(archive, progress):
        if not path.endswith("/") and (name := _split_name(path)) and name[1] in (*_IMAGES, *_LABELS):
            yield _Member(*name, data)


def _record(
    shard: Shard, key: str, fields: dict[str, bytes | None], names: tuple[str, ...] | None
) -> Record | RejectedRecord:
    images = [field for field in _IMAGES if field in fields]
    id = f"{shard.path}/{key}".encode("utf-8", "surrogateescape")
    label = _label(fields)
    if label is not None and names is not None and label.isdecimal():
        if int(label) >= len(names):
            return RejectedRecord(id, _UNKNOWN_LABEL)
        label = names[int(label)]
    if len(images) != 1:
        return RejectedRecord(id, _IMAGES_AMBIGUOUS if images else _NO_IMAGE, label)
    if label is None:
        return RejectedRecord(id, _NO_LABEL)
    id += f".{images[0]}".encode()
    image = fields[images[0]]
    return RejectedRecord(id, TOO_LARGE, label) if image is None else Record(shard.split, label, id, image)


def _label(fields: dict[str, bytes | None]) -> str | None:
    """Return the label of a sample, which is an index or a name, or None if it has none."""
    for field in _LABELS:
        data = fields.get(field)
        if data is None or len(data) > _MAX_LABEL:
            continue
        value: object
        try:
            value = json.loads(data) if field == "json" else data.decode("utf-8")
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            value = value.get("label", value.get("cls"))
        if (name := rows.class_name(value)) is not None:
            return name
    return None

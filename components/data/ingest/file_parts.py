"""Parts of a source in which each image is a file of its own. A part is a list of files."""

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from components.data.ingest.files import digest_line, image_digest, read_image
from components.data.ingest.images import TOO_LARGE
from components.data.ingest.source import Record, RejectedRecord

_MAX_FILES = 2_500  # files of a part, as many as the examples of a shard
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_IMAGE, _REJECTED = "image", "rejected"


class HashedFile(NamedTuple):
    """File that is part of the digest of a source."""

    path: str  # relative to the source
    digest: str | None = None  # None: the file is hashed with the part


@dataclass(frozen=True)
class FileParts:
    """Parts of a source in which each image is a file.

    Args:
        root: absolute path of the folder of the source.
        plan: function that yields the files to hash and the records to read, both in the order of the source, and each
            record without its image. No image is read. It is a partial of a function of a module, so that it can be
            pickled.
        missing: reason for the rejection of a record whose file is missing. None: a missing file is an error.
    """

    root: Path
    plan: Callable[[], Iterator[HashedFile | Record | RejectedRecord]]
    missing: str | None = None

    def divide(self, scratch: Path) -> Iterator[str]:
        """Write a file for each part, which lists its files and records, and yield the paths of these files."""
        number, hashed, records = 0, [], []
        for step in self.plan():
            if isinstance(step, HashedFile):
                hashed.append(step)
            else:
                records.append(_to_json(step))
            if max(len(hashed), len(records)) == _MAX_FILES:
                yield _write(scratch / f"part-{number}", hashed, records)
                number, hashed, records = number + 1, [], []
        yield _write(scratch / f"part-{number}", hashed, records)

    def digests(self, part: str) -> Iterator[bytes]:
        """Yield the lines of `sha256sum` for the files of a part."""
        self.root.stat()  # otherwise all files would be missing on a machine without the folder
        for path, digest in json.loads(Path(part).read_text())["hashed"]:
            yield digest_line(digest or image_file_digest(self.root / path, self.missing is not None), path)

    def records(self, part: str) -> Iterator[Record | RejectedRecord]:
        """Yield the records of a part."""
        self.root.stat()
        for entry in json.loads(Path(part).read_text())["records"]:
            record = _from_json(entry)
            yield record if isinstance(record, RejectedRecord) else with_image(self.root, record, self.missing)


def image_file_digest(path: Path, may_be_missing: bool, alive: Callable[[int], None] = lambda _done: None) -> str:
    """Return the digest of a file as `image_digest` does, or "missing" if there is no such file.

    Args:
        path: the file.
        may_be_missing: whether the source names files that may be missing.
        alive: called after every MiB.

    Raises:
        DataRefused: if the file is a link or a special file.
        OSError: if it cannot be read.
    """
    try:
        return image_digest(path, alive)
    except OSError as error:
        if not may_be_missing or error.errno not in _NO_FILE:
            raise
        return "missing"


def with_image(root: Path, record: Record, missing: str | None = None) -> Record | RejectedRecord:
    """Return a record with its image, which is read from the file that the id names.

    Args:
        root: folder of the source.
        record: the record without its image.
        missing: reason for the rejection of a record whose file is missing. None: a missing file is an error.

    Raises:
        DataRefused: if the file is a link or a special file.
        OSError: if it cannot be read.
    """
    try:
        image = read_image(root / record.id.decode("utf-8", "surrogateescape"))
    except OSError as error:
        if missing is None or error.errno not in _NO_FILE:
            raise
        return RejectedRecord(record.id, missing, record.class_name)
    return RejectedRecord(record.id, TOO_LARGE, record.class_name) if image is None else replace(record, image=image)


def _write(path: Path, hashed: list[HashedFile], records: list[list[Any]]) -> str:
    path.write_text(json.dumps({"hashed": hashed, "records": records}))
    return str(path)


def _to_json(record: Record | RejectedRecord) -> list[Any]:
    id = record.id.decode("utf-8", "surrogateescape")  # JSON keeps lone surrogates
    if isinstance(record, Record):
        return [_IMAGE, record.split, record.class_name, id]
    return [_REJECTED, id, record.reason, record.class_name, record.passed_over]


def _from_json(entry: list[Any]) -> Record | RejectedRecord:
    match entry:
        case [kind, split, class_name, id] if kind == _IMAGE:
            return Record(split, class_name, id.encode("utf-8", "surrogateescape"), b"")
    _, id, reason, class_name, passed_over = entry
    return RejectedRecord(id.encode("utf-8", "surrogateescape"), reason, class_name, passed_over)

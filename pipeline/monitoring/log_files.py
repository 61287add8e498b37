"""Files of a log: reading of complete records, from the place where the last reading ended.

A server may still be writing to a file, and a killed server leaves a cut one. Damage is counted and never ends the
reading.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.data.ingest import safe_files, tfrecord
from components.errors import DataRefused, UsageError

MAX_LINE = 96 * 2**20  # bytes, enough for the base64 of the largest image
LINES, RECORDS = ".jsonl", ".tfrecord"

_EXAMPLES = 3  # places that are named for each kind of problem
_CHUNK = 2**20


@dataclass
class Problems:
    """Parts of a log that cannot be used: the number for each reason, and the first places."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Count a problem.

        Args:
            reason: one of a few fixed texts.
            place: file and record, for a person.
        """
        self.counts[reason] += 1
        places = self.places.setdefault(reason, [])
        if len(places) < _EXAMPLES:
            places.append(place)


class LogRecord(NamedTuple):
    """One record of a log file."""

    place: str  # file name and number, for messages
    folder: Path  # folder of the file
    data: bytes
    is_json: bool


@dataclass
class _Position:
    """Place in a file where the next reading begins."""

    offset: int = 0
    number: int = 0  # of records before it
    unreadable: bool = False  # the rest of the file cannot be read


class LogFiles:
    """Log files, each of which is read once from beginning to end, even if it grows.

    Args:
        path: a file, or a folder whose files `*.jsonl` and `*.tfrecord*` are read in the order of their names.
        problems: counts the damaged parts.

    Raises:
        UsageError: if the path does not exist.
    """

    def __init__(self, path: Path, problems: Problems) -> None:
        if not path.exists():
            raise UsageError(f"{path} does not exist: name a log file, or a folder with files *{LINES} or *{RECORDS}")
        self._path, self._problems = path, problems
        self._positions: dict[Path, _Position] = {}

    def read(self, final: bool = True) -> Iterator[LogRecord]:
        """Yield the records that were not read before.

        Args:
            final: count an incomplete record at the end of a file as damage. False: leave it for the next reading.
        """
        for file in self._files():
            position = self._positions.setdefault(file, _Position())
            if position.unreadable:
                continue
            is_json = file.suffix == LINES
            try:
                with safe_files.open_file(file, follow_link=file == self._path) as opened:
                    opened.seek(position.offset)
                    read = self._lines if is_json else self._records
                    for place, data in read(file, opened, position, final):
                        yield LogRecord(place, file.parent, data, is_json)
            except (DataRefused, OSError) as error:
                reason = "a file that cannot be opened: a link, a special file, or one without permission"
                self._problems.add(reason, f"{file.name} ({type(error).__name__})")
                position.unreadable = True

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            return [self._path]
        return sorted(
            file
            for file in self._path.iterdir()
            if not file.name.startswith(".") and (file.suffix == LINES or RECORDS in file.suffixes[-2:])
            if not file.is_dir()
        )

    def _lines(
        self, path: Path, file: io.BufferedReader, position: _Position, final: bool
    ) -> Iterator[tuple[str, bytes]]:
        while line := file.readline(MAX_LINE + 1):
            is_long = len(line) > MAX_LINE
            while is_long and not line.endswith(b"\n") and (rest := file.readline(_CHUNK)):
                line = rest  # only its end is needed
            if not line.endswith(b"\n") and not final:
                return
            position.offset, position.number = file.tell(), position.number + 1
            place = f"{path.name}:{position.number}"
            if is_long:
                self._problems.add(f"a line of more than {MAX_LINE:,} bytes", place)
            elif line.strip():
                yield place, line

    def _records(
        self, path: Path, file: io.BufferedReader, position: _Position, final: bool
    ) -> Iterator[tuple[str, bytes]]:
        header, footer = tfrecord.HEADER, tfrecord.FOOTER
        while start := file.read(header.size):
            place = f"{path.name} record {position.number + 1}"
            length, length_crc = header.unpack(start) if len(start) == header.size else (0, None)
            end = position.offset + header.size + length + footer.size
            if length_crc is not None and length_crc != tfrecord.masked_crc(start[:8]):
                # The length is wrong, so the place of the next record is unknown.
                self._problems.add("a damaged record, after which the rest of its file is not read", place)
                position.unreadable = True
                return
            if length_crc is None or end > safe_files.file_size(file):
                if final:
                    self._problems.add("a record that is cut at the end of its file", place)
                    position.unreadable = True
                return
            if length > tfrecord.MAX_RECORD:
                self._problems.add(f"a record of more than {tfrecord.MAX_RECORD:,} bytes", place)
                file.seek(end)
            else:
                data = file.read(length)
                if file.read(footer.size) == footer.pack(tfrecord.masked_crc(data)):
                    position.offset, position.number = end, position.number + 1
                    yield place, data
                    continue
                self._problems.add("a record whose checksum does not match", place)
            position.offset, position.number = end, position.number + 1

"""Files of a log: reading of complete records, from the place where the last reading ended.

A server may still be writing to a file, and a killed server leaves a cut one. Damage is counted and never ends the
reading.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.data.ingest import safe_files, tfrecord
from components.data.ingest.images import MAX_BYTES
from components.errors import DataRefused, UsageError
from pipeline.monitoring.positions import TAIL, Position, Positions

MAX_LINE = (MAX_BYTES + 2) // 3 * 4 + 2**20  # bytes: the base64 of the largest image, and 1 MiB for all other values
LINES, RECORDS = ".jsonl", ".tfrecord"

_EXAMPLES = 3  # places that are named for each kind of problem
_CHUNK = 2**20
_PART = 2**24  # bytes of a part of a file

# A rotated log has a number or a date after its ending, and TensorFlow writes `.tfrecord-00000-of-00001`.
_ENDING = re.compile(rf"({re.escape(LINES)}|{re.escape(RECORDS)})(?=[.-]|$)", re.ASCII | re.IGNORECASE)
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_IMAGES = (".png", ".jpg", ".jpeg")  # the lines of a log may name images beside it

_ALLOWED = f"logs have {LINES} or {RECORDS} in their names and are not compressed"
_NOT_A_LOG = f"a file that is not a log: {_ALLOWED}. Rename it, decompress it or move it to another folder"
_NOT_OPENED = (
    "a file that cannot be opened: logs are regular files, not links or special files. Put the file itself there, and "
    "allow this user to read it"
)


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
            places.append(valid_text(place))


class LogRecord(NamedTuple):
    """One record of a log file."""

    place: str  # file name and number, for messages
    file: Path
    offset: int  # of its first byte
    data: bytes
    is_json: bool


class LogPart(NamedTuple):
    """Part of a log file: the records that begin in it."""

    file: str  # absolute path
    start: int  # first byte
    end: int  # byte after the last one


class LogFiles:
    """Log files, each of which is read once from beginning to end, even if it grows or is rotated.

    Args:
        path: a file, or a folder. Names contain `.jsonl` or `.tfrecord`, and the files of a folder are read in the
            order of their names. Images and hidden files in a folder are ignored; other files are counted as problems.
        problems: counts the damaged parts.

    Raises:
        UsageError: if the path does not exist, or is a file that is not a log.
    """

    def __init__(self, path: Path, problems: Problems) -> None:
        if not path.exists():
            raise UsageError(f"{path} does not exist: name a log file, or a folder with files *{LINES} or *{RECORDS}")
        self._is_folder = path.is_dir()
        if not self._is_folder and _log_ending(path) is None:
            raise UsageError(f"{path} is not a log: {_ALLOWED}. Rename it or decompress it")
        self._path, self._problems = path, problems
        self._positions = Positions()
        self.share = 0.0  # of the bytes of all files that the last reading has read
        self._reported: set[Path] = set()  # files that were counted as problems because they cannot be read

    def read(self, final: bool = True) -> Iterator[LogRecord]:
        """Yield the records that were not read before.

        Args:
            final: count an incomplete record at the end of a file, and a missing file, as damage. False: leave them for
                the next reading.
        """
        self._positions.begin()
        files = self._files(final)
        sizes = [_size(file) for file in files]
        before, total = 0, max(sum(sizes), 1)
        for file, size in zip(files, sizes, strict=True):
            is_json = _log_ending(file) == LINES
            try:
                with safe_files.open_file(file, follow_link=file == self._path) as opened:
                    position = self._positions.seek(opened, file.name, final)
                    if position is not None and not position.unreadable:
                        read = _lines if is_json else _records
                        for place, offset, data in read(file, opened, position, final, self._problems):
                            self.share = min((before + position.offset) / total, 1.0)
                            yield LogRecord(place, file, offset, data, is_json)
                        self._positions.end(position)
            except (DataRefused, OSError) as error:
                self._report_unopened(file, error, final)
            before += size

    def parts(self) -> list[LogPart]:
        """Return the parts of all files that can be opened. They can be read independently of each other."""
        parts: list[LogPart] = []
        for file in self._files(final=False):
            try:
                with safe_files.open_file(file, follow_link=file == self._path) as opened:
                    size = safe_files.file_size(opened)
            except (DataRefused, OSError):
                continue  # a reading counts it as a problem
            # A record of a TFRecord file can only be found from the beginning of the file.
            step = _PART if _log_ending(file) == LINES else max(size, 1)
            parts += [LogPart(str(file.resolve()), start, min(start + step, size)) for start in range(0, size, step)]
        return parts

    def _files(self, final: bool) -> list[Path]:
        if not self._is_folder:
            return [self._path]
        try:
            files = sorted(file for file in self._path.iterdir() if not file.name.startswith(".") and not file.is_dir())
        except OSError as error:
            self._report_unopened(self._path, error, final)
            return []
        logs = [file for file in files if _log_ending(file) is not None]
        for file in files:
            if _log_ending(file) is None and not file.name.lower().endswith(_IMAGES):
                self._report(_NOT_A_LOG, file, file.name)
        return logs

    def _report_unopened(self, file: Path, error: Exception, final: bool) -> None:
        # While logs are rotated, a file is missing for a moment.
        if final or not isinstance(error, FileNotFoundError):
            self._report(_NOT_OPENED, file, f"{file.name} ({type(error).__name__})")

    def _report(self, reason: str, file: Path, place: str) -> None:
        if file not in self._reported:
            self._reported.add(file)
            self._problems.add(reason, place)


def read_part(part: LogPart, problems: Problems) -> Iterator[LogRecord]:
    """Yield the records of a part of a log file.

    Args:
        part: the part.
        problems: counts the damaged parts.

    Raises:
        DataRefused: if the file is a special file.
        OSError: if the file cannot be read.
    """
    path = Path(part.file)
    is_json = _log_ending(path) == LINES
    read = _lines if is_json else _records
    with safe_files.open_file(path) as file:
        if part.start:  # the line that crosses the start belongs to the part before
            file.seek(part.start - 1)
            while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
        for place, offset, data in read(path, file, Position(offset=file.tell()), True, problems):
            if offset >= part.end:
                break
            yield LogRecord(place, path, offset, data, is_json)


def _lines(
    path: Path, file: io.BufferedReader, position: Position, final: bool, problems: Problems
) -> Iterator[tuple[str, int, bytes]]:
    while line := file.readline(MAX_LINE + 1):
        if safe_files.file_size(file) < position.offset:
            return  # truncated meanwhile: what follows would be a piece of a line
        start, is_long = position.offset, len(line) > MAX_LINE
        while is_long and not line.endswith(b"\n") and (rest := file.readline(_CHUNK)):
            line = line[-TAIL:] + rest  # only its end is needed
        if not line.endswith(b"\n") and not final:
            return
        position.advance(file.tell(), line)
        place = f"{valid_text(path.name)}:{position.number}"
        if is_long:
            problems.add(f"a line of more than {MAX_LINE:,} bytes: log smaller images, or the paths of images", place)
        elif line.strip():
            yield place, start, line


def _records(
    path: Path, file: io.BufferedReader, position: Position, final: bool, problems: Problems
) -> Iterator[tuple[str, int, bytes]]:
    header, footer = tfrecord.HEADER, tfrecord.FOOTER
    while start := file.read(header.size):
        place = f"{valid_text(path.name)} record {position.number + 1}"
        length, length_crc = header.unpack(start) if len(start) == header.size else (0, None)
        end = position.offset + header.size + length + footer.size
        if length_crc is not None and length_crc != tfrecord.masked_crc(start[:8]):
            # The length is wrong, so the place of the next record is unknown.
            problems.add(
                "a damaged record, after which the rest of its file is not read: logs are uncompressed TFRecord "
                "files. Copy the file again",
                place,
            )
            position.unreadable = True
            return
        if length_crc is None or end > safe_files.file_size(file):
            if final:
                problems.add(
                    "a record that is cut at the end of its file: copy the file again if its server still runs",
                    place,
                )
                position.unreadable = True
            return
        if length > tfrecord.MAX_RECORD:
            problems.add(
                f"a record of more than {tfrecord.MAX_RECORD:,} bytes: log requests with fewer or smaller images",
                place,
            )
            file.seek(max(end - TAIL, 0))
            position.advance(end, file.read(TAIL))
        else:
            data = file.read(length)
            crc = file.read(footer.size)
            offset = position.offset
            position.advance(end, start + data[-TAIL:] + crc)
            if crc == footer.pack(tfrecord.masked_crc(data)):
                yield place, offset, data
            else:
                problems.add("a record whose checksum does not match: copy its file again", place)


def _size(file: Path) -> int:
    try:
        return file.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def valid_text(text: str) -> str:
    """Return a text with its unpaired surrogates escaped, such as those of a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _log_ending(file: Path) -> str | None:
    """Return LINES or RECORDS for the name of a log, otherwise None."""
    endings = _ENDING.findall(file.name)
    return endings[-1].lower() if endings and not file.name.lower().endswith(_COMPRESSED) else None

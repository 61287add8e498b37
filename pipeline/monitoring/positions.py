"""Places in log files where the next reading begins. They survive the rotation of logs.

Logs are rotated in two ways. Either a file gets another name and a new file takes its place, or its content is copied
to a new file and the file is truncated (`copytruncate`).
"""

import io
import os
from collections import deque
from dataclasses import dataclass, field

_HEAD = 1024  # bytes at the beginning of a file that tell it from another file with the same inode
TAIL = 1024  # bytes before the end of a reading that tell a copy from a file that begins alike
_MOST_TRUNCATED = 100  # truncated files whose copies are still recognized


@dataclass(eq=False)
class Position:
    """Place in a file where the next reading begins."""

    head: bytes = b""  # first bytes of the file
    offset: int = 0
    number: int = 0  # of records before it
    tail: bytes = b""  # bytes before the offset, as they were read, because the file may be truncated meanwhile
    unreadable: bool = False  # the rest of the file cannot be read
    name: str = ""  # of the file in the last reading
    reading: int = 0  # number of the last reading
    # Ends of the last two readings, with the bytes before them. They identify a copy of the file.
    ends: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=2))
    original: "Position | None" = None  # position in the file of which this one is a copy

    def advance(self, offset: int, data: bytes) -> None:
        """Move behind a record.

        Args:
            offset: the new offset.
            data: the last bytes of the record, at least 1,024 unless it is shorter.
        """
        self.offset, self.number = offset, self.number + 1
        self.tail = (self.tail + data[-TAIL:])[-TAIL:]

    @property
    def stem(self) -> str:
        """Name of the file without its endings."""
        return self.name.split(".", 1)[0]


class Positions:
    """Positions in all files. A path does not identify a file, because rotation renames files and reuses names."""

    def __init__(self) -> None:
        self._positions: dict[tuple[int, int], Position] = {}  # by device and inode
        self._truncated: deque[Position] = deque(maxlen=_MOST_TRUNCATED)
        self._earlier: list[Position] = []
        self._reading = 0

    def begin(self) -> None:
        """Begin a reading of all files."""
        self._reading += 1
        # Files that exist together may have equal content, so only a file that appears later can be a copy.
        self._earlier = [earlier for earlier in (*reversed(self._truncated), *self._positions.values()) if earlier.ends]

    def seek(self, file: io.BufferedReader, name: str, final: bool) -> Position | None:
        """Seek the end of the last reading of a file, and return it.

        Of a copy, the part is skipped that was read of the original. A copy has a longer name that begins alike, such
        as `log.jsonl.1` or `log-2026.jsonl` for `log.jsonl`.

        Args:
            file: the file.
            name: its name.
            final: there is no later reading.

        Returns:
            The position; None if only a later reading can tell whether the file is a copy.
        """
        status = os.fstat(file.fileno())
        identity, size = (status.st_dev, status.st_ino), status.st_size
        position = self._positions.setdefault(identity, Position())
        head = file.read(_HEAD)
        # A file that was truncated begins again, and so does a new file that got the inode of a deleted one.
        is_other = bool(position.ends) and _bytes_before(file, position.ends[-1][0]) != position.ends[-1][1]
        if is_other or size < position.offset or not head.startswith(position.head):
            self._truncated.append(position)
            position = self._positions[identity] = Position()
        if not position.offset and not self._skip_copied(position, file, size, name, head, final):
            return None
        position.head, position.name, position.reading = head, name, self._reading
        file.seek(position.offset)
        return position

    def end(self, position: Position) -> None:
        """End the reading of a file at a position."""
        if position.offset:
            position.ends.append((position.offset, position.tail))

    def _skip_copied(
        self, position: Position, file: io.BufferedReader, size: int, name: str, head: bytes, final: bool
    ) -> bool:
        """Move the position in a new file, if it is a copy, behind what was read of its original.

        Args:
            position: the position.
            file: the file.
            size: its size in bytes.
            name: its name.
            head: its first bytes.
            final: there is no later reading.

        Returns:
            False if only a later reading can tell: the copy may be incomplete, or its original not yet truncated.
        """
        known, position.original = position.original, None
        for original in [known] if known else self._earlier:
            if not (len(name) > len(original.name) and name.startswith(original.stem) and _alike(head, original.head)):
                continue
            is_short = size < original.ends[0][0]
            # The original of a copy that was recognized before may have grown.
            is_copy = original is known if is_short else _ends_alike(file, size, original)
            if is_copy:
                position.original = original
            if (is_copy or is_short) and self._is_untruncated(original) and not final:
                return False
            if is_copy:
                position.offset, position.number = min(size, original.offset), original.number
                position.tail = _bytes_before(file, position.offset)
                break
        return True

    def _is_untruncated(self, position: Position) -> bool:
        is_there = position.reading >= self._reading - 1
        return is_there and not any(position is truncated for truncated in self._truncated)


def _alike(head: bytes, other: bytes) -> bool:
    return head.startswith(other) or other.startswith(head)


def _ends_alike(file: io.BufferedReader, size: int, original: Position) -> bool:
    """Return whether a file has the same bytes before the last end of a reading of the original that it reaches."""
    end, tail = max(end for end in original.ends if end[0] <= size)
    return _bytes_before(file, end) == tail


def _bytes_before(file: io.BufferedReader, end: int) -> bytes:
    start = max(end - TAIL, 0)
    file.seek(start)
    return file.read(end - start)

"""Windows of answers, and the sums that the answers of a window are added to."""

import heapq
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from components.data.pictures import ExamplePicture
from components.data.statistics.figures import Totals
from pipeline.monitoring.log_files import Problems
from pipeline.monitoring.measured import MeasuredAnswer, as_table

FARTHEST = 8  # images that are kept of each window
# Windows of which these images are in memory. Of other windows, only the places of the images in the log are known.
PICTURED_WINDOWS = 100

_LATE = (
    "an answer that is more than one window late: answers may arrive late by the length of a window. Use longer "
    "windows, or read the logs without --follow"
)
_EARLY = (
    "a time in the future: --follow uses an answer if its time is in the current or the next window. Log the time "
    "zone, or correct the clock of the client or of this machine"
)


class Far(NamedTuple):
    """Image that is far from the training images, in the order of the distance."""

    distance: float
    order: int  # decides between equal distances
    place: str  # in the log
    predicted: int  # index of the predicted class
    picture: str  # data URI of a small copy; empty if the window has no pictures


@dataclass
class Sums:
    """Sums over the answers of one window."""

    version: int
    classes: int
    answers: int = 0
    failed: int = 0
    invalid: int = 0
    unreadable: int = 0  # answers that the model cannot have given
    images: Totals | None = None
    pixels: int = 0  # images that were sent as pixels, so that their format and size are unknown
    # Arrays of numbers take a fourth of the memory of lists.
    predicted: "array[int]" = field(default_factory=lambda: array("l"))
    confidence: "array[float]" = field(default_factory=lambda: array("d"))
    correct: int = 0
    labelled: int = 0
    latency_ms: "array[float]" = field(default_factory=lambda: array("d"))
    start: float | None = None
    end: float | None = None
    farthest: list[Far] = field(default_factory=list)
    has_pictures: bool = True

    def __len__(self) -> int:
        return self.answers + self.failed

    def add(self, measured: Sequence[MeasuredAnswer]) -> None:
        """Add answers, at most some hundreds at a time."""
        for item in measured:
            answer = item.answer
            if answer.time is not None:
                self.start = min(answer.time, answer.time if self.start is None else self.start)
                self.end = max(answer.time, answer.time if self.end is None else self.end)
            if answer.latency_ms is not None:
                self.latency_ms.append(answer.latency_ms)
            if answer.failed:
                self.failed += 1
                continue
            self.answers += 1
            self.invalid += item.invalid
            self.unreadable += item.unreadable
            self.pixels += answer.is_pixels
            if item.index >= 0:
                self.predicted.append(item.index)
            if item.confidence is not None:
                self.confidence.append(item.confidence)
            if item.label is not None:
                self.labelled += 1
                self.correct += item.label == item.index
            if item.distance is not None:
                self._consider(item, item.distance)
        rows = as_table(item for item in measured if not item.answer.failed)
        if len(rows):
            totals = Totals.of(rows, self.classes)
            self.images = totals if self.images is None else Totals.add([self.images, totals])

    def drop_pictures(self) -> None:
        """Forget the pictures of the farthest images, and add no others."""
        self.has_pictures = False
        self.farthest = [far._replace(picture="") for far in self.farthest]

    def _consider(self, item: MeasuredAnswer, distance: float) -> None:
        """Keep an answer if its image is one of the farthest."""
        order = -self.answers
        if len(self.farthest) == FARTHEST and (distance, order) < self.farthest[0][:2]:
            return
        # A small copy takes less memory than the image, and many windows of time may be open.
        image = ExamplePicture("", b"", image=item.answer.image or b"") if self.has_pictures else None
        far = Far(distance, order, item.answer.place, item.index, image.source if image else "")
        heapq.heappush(self.farthest, far)
        if len(self.farthest) > FARTHEST:
            heapq.heappop(self.farthest)


class Windows:
    """Division of the answers of one version into windows.

    Args:
        version: the version.
        classes: number of its classes.
        images: number of answers in a window; None if windows are divided by time.
        seconds: length of a window, if they are divided by time. Windows begin at multiples of it since 1970.
        problems: counts answers that come after their window was complete, or are from the future.
        keep_open: whether windows of time are only yielded by `finish`. This is right for complete logs, whose files
            are read one after the other even if they cover the same time.
    """

    def __init__(
        self,
        version: int,
        classes: int,
        images: int | None,
        seconds: float | None,
        problems: Problems,
        keep_open: bool = False,
    ) -> None:
        self._version, self._classes, self._images, self._seconds = version, classes, images, seconds
        self._keep_open = keep_open
        self._open: dict[int, Sums] = {}
        self._newest = 0  # number of the newest period of time
        self._problems = problems

    def add(self, measured: Sequence[MeasuredAnswer], now: float) -> Iterator[Sums]:
        """Add answers, and yield the windows that are complete.

        A window of time is complete when an answer is more than one window later, so answers may arrive late by up to
        the length of a window. An answer whose time is after the next window is not added: its clock is wrong. With
        `keep_open`, no window of time is complete before `finish`, and answers from the future are added, too. Answers
        without a time are not added to windows of time.

        Args:
            measured: the answers.
            now: seconds since 1970.
        """
        closes_by_time = self._seconds is not None and not self._keep_open
        current = int(now // self._seconds) if self._seconds else 0
        start = 0
        for period, end in self._parts(measured):
            part = measured[start:end]
            start = end
            if period is None or not part:
                continue
            if closes_by_time and not self._newest - 1 <= period <= current + 1:
                for item in part:
                    self._problems.add(_LATE if period <= current else _EARLY, item.answer.place)
                continue
            if period not in self._open:
                self._open[period] = Sums(self._version, self._classes)
                for old in sorted(self._open)[:-PICTURED_WINDOWS]:
                    self._open[old].drop_pictures()
            self._open[period].add(part)
            # A clock that is ahead must not make the answers of right clocks late.
            self._newest = max(self._newest, min(period, current))
            for complete in sorted(self._open):
                is_full = self._images is not None and len(self._open[complete]) >= self._images
                if is_full or (closes_by_time and complete < self._newest - 1):
                    yield self._open.pop(complete)

    def finish(self) -> Iterator[Sums]:
        """Yield the windows that are not complete."""
        for period in sorted(self._open):
            yield self._open[period]
        self._open = {}

    def expire(self, now: float) -> Iterator[Sums]:
        """Yield the windows of time that are complete by the clock, even if no later answer comes.

        Args:
            now: seconds since 1970.
        """
        if self._seconds:
            for period in sorted(self._open):
                if (period + 2) * self._seconds < now:
                    # A later answer of this period is late, and must not open the window again.
                    self._newest = max(self._newest, period + 2)
                    yield self._open.pop(period)

    def _parts(self, measured: Sequence[MeasuredAnswer]) -> Iterator[tuple[int | None, int]]:
        """Yield consecutive answers of the same window: its period, and the end of the part."""
        if self._images is not None:
            left = self._images - len(self._open.get(0, ()))
            ends = [*range(left, len(measured), self._images), len(measured)]
            yield from ((0, end) for end in ends)
            return
        assert self._seconds
        periods = [None if item.answer.time is None else int(item.answer.time // self._seconds) for item in measured]
        for place, period in enumerate(periods):
            if place + 1 == len(periods) or periods[place + 1] != period:
                yield period, place + 1


def percentiles(latency_ms: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentile; empty without values."""
    if not latency_ms:
        return {}
    values = np.percentile(latency_ms, [50, 95, 99]).tolist()
    return dict(zip(("p50", "p95", "p99"), values, strict=True))


def moment(seconds: float | None) -> datetime | None:
    """Return a time as a date in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

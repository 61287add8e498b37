"""Monitoring of the versions that a pipeline pushed, by the logs of their server."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from components.data.ingest.engine_work import RunTasks
from components.errors import DataRefused, NotFound, StoreError, UsageError
from components.model.serving_folder import versions
from pipeline.metadata.garbage import FIRST_ALERT, VERSION_ALERTS
from pipeline.monitoring.arguments import engine, read_labels, since_time, window_size
from pipeline.monitoring.checks import judge
from pipeline.monitoring.engine_work import measured_parts
from pipeline.monitoring.log_files import LogFiles, Problems, valid_text
from pipeline.monitoring.measured import (
    BATCH_BYTES,
    BATCH_IMAGES,
    MeasuredAnswer,
    MeasureImages,
    measure_batch,
    measure_images_of,
)
from pipeline.monitoring.report import REPORT, MonitorReport, Window, log_problems
from pipeline.monitoring.sample import IMAGES as SAMPLE_IMAGES
from pipeline.monitoring.sample import Sampler, check_folder, write_sample
from pipeline.monitoring.serving_log import Answer, parse
from pipeline.monitoring.version import MonitoredVersion
from pipeline.monitoring.webhook import Webhook, message
from pipeline.monitoring.windows import PICTURED_WINDOWS, Sums

IMAGES = 1000  # default size of a window

_NAMED = 5  # classes that a message names


class RecordedReport(NamedTuple):
    """Report in ML Metadata."""

    artifact: int  # id
    file: Path


class Monitor:
    """Monitor of one pipeline, which reads each part of the logs once.

    Args:
        name: name of the pipeline.
        logs: a log file, or a folder of them.
        labels: table with the columns `id` and `label`, which has the true classes; None without one.
        window: size of a window, see `window_size`.
        overrides: settings as `a.b=c`, which override those that the run recorded.
        runs: folder of the run folders.
        sample: number of images to choose for `write_sample`.
        follow: the logs are read several times, while they grow. False: they are read once, and each window of time has
            the answers of all files.
        since: time from which on answers are used, see `since_time`. None for all answers.
        progress: called with the number of answers so far, and the share of the logs that was read.

    Raises:
        UsageError: if a path, a model or its reference does not exist, or a setting or the labels are wrong.
        DataRefused: if a record or the labels cannot be read.
        StoreError: if ML Metadata cannot be read.
    """

    def __init__(
        self,
        name: str,
        logs: Path,
        labels: Path | None = None,
        window: str = str(IMAGES),
        overrides: Sequence[str] = (),
        runs: Path = Path("runs"),
        sample: int = 0,
        follow: bool = False,
        since: str | None = None,
        progress: Callable[[int, float], None] = lambda _answers, _share: None,
    ) -> None:
        self.name, self.runs, self._follow, self._progress = name, runs, follow, progress
        self._sampler = Sampler(sample) if sample else None
        self._logs, self._overrides = logs, overrides
        self._size = window_size(window)
        self._folder = runs / name / "serving"
        pushed = versions(self._folder)
        if not pushed:
            raise NotFound(
                f"{name} is not a pipeline with a pushed model below {runs}: name one that `vitpipe models list` shows"
            )
        self.problems = Problems()
        self._files = LogFiles(logs, self.problems)
        self._table, self._labels = labels, read_labels(labels)
        self._measure_images: MeasureImages = measure_images_of
        self._webhook = Webhook(follow)
        self._number = 0  # of the last window
        self.answered = 0  # answers that were measured
        self._labelled = 0  # answers with a true class, in all windows
        self._unknown: dict[int, str] = {}  # why answers of a version are not used
        newest = self._open(pushed[-1])
        self._versions: dict[int, MonitoredVersion] = {pushed[-1]: newest}
        self._newest = newest
        self._check_labels(pushed)
        self._since = None if since is None else since_time(since)
        self._earlier_problems = 0  # number of problems that were found before the last answer that is too old
        self._needs_time = bool(self._size.seconds or since)
        self._stop_at = math.inf  # in seconds of `time.monotonic`

    def stop_within(self, seconds: float) -> None:
        """Let readings end before the end of the logs if they take longer than some seconds from now."""
        self._stop_at = time.monotonic() + seconds

    @property
    def _root(self) -> Path:
        """Absolute path of the folder of the pipeline's artifacts."""
        return self._folder.parent.resolve() / "root"

    def answers(self, final: bool = True) -> Iterator[tuple[int, list[MeasuredAnswer]]]:
        """Yield the answers that were not read before, in batches of one version.

        Args:
            final: count an incomplete record at the end of a log as damage.
        """
        # A version may have been pushed since the last reading.
        self._unknown = {}
        for pushed in versions(self._folder)[-1:]:
            self._newest = self.version(pushed) or self._newest
        batches: dict[int, list[Answer]] = {}
        size = 0
        for record in self._files.read(final):
            if time.monotonic() > self._stop_at:
                break
            for answer in parse(record, self.problems):
                version = self._newest.record.version if answer.version is None else answer.version
                if self.version(version) is None:
                    reason = (
                        "an answer of a version that is not pushed, or whose reference no longer exists: log the "
                        "number of the version's folder, or leave the version out if the newest one answered"
                    )
                    self.problems.add(reason, f"{answer.place} version {version}: {self._unknown[version]}")
                    continue
                if self._needs_time and answer.time is None:
                    reason = "an answer without a usable time, which --since and windows of time need: log the time"
                    self.problems.add(reason, answer.place)
                    continue
                if self._since is not None and answer.time is not None and answer.time < self._since:
                    self._earlier_problems = self.problems.counts.total()
                    continue
                batches.setdefault(version, []).append(answer)
                size += len(answer.image or b"")
                if len(batches[version]) >= BATCH_IMAGES or size >= BATCH_BYTES:
                    yield from self._measure(batches)
                    batches, size = {}, 0
        yield from self._measure(batches)

    def read(self, final: bool = True) -> Iterator[Window]:
        """Yield the windows that the new part of the logs completes.

        Args:
            final: also yield incomplete windows, and count an incomplete record at the end of a log as damage.
                False: also yield windows of time that ended long ago by the clock.
        """
        for number, measured in self.answers(final):
            version = self.version(number)
            assert version is not None
            if self._sampler:
                self._sampler.add(measured)
            for sums in version.windows.add(measured, time.time()):
                yield self._judge(version, sums)
        for _, of_version in sorted(self._versions.items()):
            for sums in of_version.windows.finish() if final else of_version.windows.expire(time.time()):
                yield self._judge(of_version, sums)

    @property
    def unused_labels(self) -> str:
        """Warning that no answer so far has a true class; empty if one has, or without answers or labels."""
        if not self._labels or not self.answered or self._labelled:
            return ""
        return (
            f"--labels {self._table}: no usable answer has one of its ids, such as {next(iter(self._labels))!r}, so no "
            "accuracy is measured: write the ids of the log or the sha256 of the images"
        )

    @contextmanager
    def measured_by(self, run_tasks: RunTasks) -> Iterator[None]:
        """Let the workers of an engine decode and measure the images. Until the block ends, a reading uses the results.

        Args:
            run_tasks: function that runs tasks on workers.

        Raises:
            EngineError: if the engine failed in all attempts, or a worker cannot read a log.
        """
        folder = self._folder.parent.resolve()
        framing = self._newest.reference.framing
        with measured_parts(self._files.parts(), framing, self._since, folder, run_tasks) as measured:
            self._measure_images = measured
            yield
        self._measure_images = measure_images_of

    def read_all(self) -> MonitorReport:
        """Return the report of the whole log, with the pictures of the newest windows. It is empty if none is new.

        Raises:
            DataRefused: if no answer can be used. With `since`, that includes only what follows the last older answer.
        """
        windows: list[Window] = []
        pictured: dict[bool, deque[int]] = {True: deque(), False: deque()}  # windows with and without an alert
        for window in self.read():
            places = pictured[bool(window.alerts)]
            places.append(len(windows))
            windows.append(window)
            if len(places) > PICTURED_WINDOWS:
                oldest = places.popleft()
                windows[oldest] = windows[oldest].without_pictures()
        report = self.report(windows)
        if not report.windows and (self._since is None or self.problems.counts.total() > self._earlier_problems):
            problems = "; ".join(
                f"{problem.count:,}: {problem.reason}, first: {', '.join(problem.places)}"
                for problem in report.problems
            )
            raise DataRefused(
                f"{self._logs}: no answer can be used ({problems or 'it has no records'}): name the log of a server of "
                f"{self.name} in one of the formats of docs/monitoring.md"
            )
        return report

    def report(self, windows: Sequence[Window]) -> MonitorReport:
        """Return the report of some windows, with the problems so far."""
        return MonitorReport(
            pipeline=self.name,
            created=datetime.now(UTC),
            logs=valid_text(str(self._logs)),
            false_alerts=self._newest.bounds.monitor.false_alerts,
            windows=list(windows),
            problems=log_problems(self.problems),
        )

    def record(self, report: MonitorReport) -> RecordedReport:
        """Record a report in ML Metadata as an execution that read the pushed models.

        Raises:
            NotFound: if ML Metadata does not know the model of a window.
            StoreError: if the store cannot be written.
        """
        from pipeline.metadata.standalone_record import MONITOR, StandaloneRecorder

        numbers = sorted({window.version for window in report.windows} or {self._newest.record.version})
        inputs = []
        for number in numbers:
            version = self.version(number)
            if version is None or version.artifact is None:
                raise NotFound(
                    f"ML Metadata knows neither the push of version {number} nor its model, so no report of it can be "
                    "recorded: see `vitpipe models verify`"
                )
            inputs.append((version.artifact[0], version.artifact[1].id))
        recorder = StandaloneRecorder(self._newest.address, self.name, self._root, MONITOR)
        with recorder.recorded(inputs) as output:
            output.folder.mkdir(parents=True)
            (output.folder / REPORT).write_text(report.model_dump_json(indent=1) + "\n", "utf-8")
            output.properties |= {
                "versions": ", ".join(map(str, numbers)),
                "windows": len(report.windows),
                "alerts": report.alerts,
                FIRST_ALERT: report.first_alert,
                VERSION_ALERTS: json.dumps(report.version_alerts),
                "logs": report.logs,
            }
        return RecordedReport(output.artifact, output.folder / REPORT)

    def send_alerts(self, windows: Sequence[Window], recorded: RecordedReport | None) -> None:
        """Send a message about each window with an alert to the webhook of the settings, if it is set.

        Args:
            windows: the windows.
            recorded: the report that has them; None if it could not be recorded.

        Raises:
            ServerError: if a message was not accepted, see `Webhook`.
        """
        alerted = [window for window in windows if window.alerts]
        report = str(recorded.file) if recorded else None
        self._webhook.send_all(
            self._newest.bounds.monitor.webhook, [message(self.name, window, report) for window in alerted]
        )

    def write_sample(self, folder: Path, report: int) -> int:
        """Write the images that were chosen for labelling to a new folder.

        Args:
            folder: the new folder.
            report: id of the artifact of the report, which the folder names as its origin.

        Returns:
            The number of images.

        Raises:
            UsageError: if the folder exists.
        """
        assert self._sampler is not None
        classes = {number: version.record.classes for number, version in self._versions.items()}
        origin = {"pipeline": self.name, "logs": str(self._logs), "report": report}
        return write_sample(folder, self._sampler.choose(), classes, origin)

    def version(self, number: int) -> MonitoredVersion | None:
        """Return a version; None if it is not pushed, or its reference no longer exists."""
        if number not in self._versions and number not in self._unknown:
            try:
                if number in versions(self._folder):
                    self._versions[number] = self._open(number)
                else:
                    self._unknown[number] = "it is not in the folder of pushed models"
            except (UsageError, DataRefused) as error:
                self._unknown[number] = str(error)
            except (StoreError, OSError) as error:
                if not self._follow:
                    raise
                self._unknown[number] = str(error)  # until the next reading
        return self._versions.get(number)

    def _open(self, number: int) -> MonitoredVersion:
        return MonitoredVersion(
            self._folder / str(number), self.runs, self._overrides, self._size, self.problems, not self._follow
        )

    def _check_labels(self, pushed: Sequence[int]) -> None:
        """Check that a label of the table is a class of a pushed version."""
        labels = {*self._labels.values()}
        opened = (self.version(number) for number in reversed(pushed))
        if not labels or any(not labels.isdisjoint(version.record.classes) for version in opened if version):
            return
        classes = self._newest.record.classes
        more = f" and {len(classes) - _NAMED:,} more" if len(classes) > _NAMED else ""
        raise UsageError(
            f"--labels {self._table}: none of its labels, such as {min(labels)!r}, is a class of the model: write the "
            f"names of its classes, which are {', '.join(map(repr, classes[:_NAMED]))}{more}"
        )

    def _measure(self, batches: dict[int, list[Answer]]) -> Iterator[tuple[int, list[MeasuredAnswer]]]:
        for number, batch in batches.items():
            version = self.version(number)
            assert version is not None
            yield number, measure_batch(batch, version.reference, self._labels, self.problems, self._measure_images)
            self.answered += len(batch)
            self._progress(self.answered, self._files.share)

    def _judge(self, version: MonitoredVersion, sums: Sums) -> Window:
        self._number += 1
        self._labelled += sums.labelled
        return judge(sums, version.reference, self._number, version.bounds.data_gate, version.bounds.monitor)


def monitor(
    name: str,
    logs: Path,
    *,
    labels: Path | None = None,
    window: str = str(IMAGES),
    overrides: Sequence[str] = (),
    sample: Path | None = None,
    sample_images: int = SAMPLE_IMAGES,
    since: str | None = None,
    runs: Path = Path("runs"),
) -> MonitorReport:
    """Compare what a model server logged with the training images and the test answers of the model.

    Args:
        name: name of the pipeline.
        logs: a log file, or a folder with files `*.jsonl` and `*.tfrecord*`.
        labels: table with the columns `id` and `label`, which has the true classes.
        window: number of answers in a window, or a time such as `1h`.
        overrides: settings as `a.b=c`, which override those that the run recorded. Those of the group `beam` name an
            engine whose workers decode and measure the images.
        sample: new folder for images that are worth labelling; None to write none.
        sample_images: number of these images.
        since: time from which on answers are used, in ISO 8601, or such as `1h` for an hour ago. None for all answers.
        runs: folder of the run folders.

    Returns:
        The report, which ML Metadata records as an artifact that was made from the pushed models, unless it has no
        windows because no answer is new. Only the command sends alerts to a webhook.

    Raises:
        UsageError: if a path, a model or its reference does not exist, or a setting or the labels are wrong.
        DataRefused: if a record or the labels cannot be read.
        StoreError: if ML Metadata cannot be read or written.
    """
    if sample:
        check_folder(sample)
    run_tasks = engine(overrides, lambda _message: None)
    opened = Monitor(name, logs, labels, window, overrides, runs, sample_images if sample else 0, since=since)
    with opened.measured_by(run_tasks) if run_tasks else nullcontext():
        report = opened.read_all()
    if not report.windows:
        return report
    recorded = opened.record(report)
    if sample:
        opened.write_sample(sample, recorded.artifact)
    return report

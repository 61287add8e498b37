"""Retraining when a new span appears.

Each span is trained on once. ML Metadata keeps the record of the spans that are done, so a watcher can be stopped and
started again at any time. Each run is a child process.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from components.data import ingest
from components.data.ingest import manifest
from components.errors import AnotherRun, DataRefused, Exit, SettingsError, StoreError, UsageError
from components.model.serving_folder import versions
from pipeline.console.duration import duration
from pipeline.metadata.address import NoStoreError
from pipeline.metadata.garbage import MONITORED, VERSION_ALERTS
from pipeline.metadata.properties import UnreadableError, read
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Run, Value
from pipeline.result.run_result import RunResult, RunState
from pipeline.run_lock import lock_for_run
from pipeline.settings import Settings

TRIGGER, DRIFT_TRIGGER = "span", "drift"  # one of them is recorded with each run that the watcher starts
# Another run on the same data would end with the same code. After a crash, another run may succeed.
VERDICTS = (Exit.OK, Exit.DATA_REFUSED, Exit.NOT_BLESSED, Exit.NOT_SERVABLE)
_GRACE = 60.0  # seconds that an interrupted run has to end


@dataclass(frozen=True)
class Pace:
    """Polling and retry intervals of the watcher.

    Attributes:
        every: seconds between two checks of the data folder. It is polled, because a network volume sends no events.
        settle: seconds to wait after a span has appeared, in case another one follows.
        retry: seconds to wait after the first failure. The wait doubles with each further failure.
        longest_retry: longest wait after a failure, in seconds.
        attempts: number of runs on one span before the watcher gives up on it.
    """

    every: float = 10.0
    settle: float = 30.0
    retry: float = 60.0
    longest_retry: float = 3600.0
    attempts: int = 8


@dataclass(frozen=True)
class Watcher:
    """Trains once on each span that becomes the newest of the data folder.

    Attributes:
        settings: the settings of the runs.
        train: called with a span, the trigger and the reason. It runs the pipeline on the span and returns the exit
            code of the run.
        report: called with each message for the user.
        pace: the intervals of polling and retries.
        on_drift: train on a new span only after `vitpipe monitor` raised an alert about the version that serves.
    """

    settings: Settings
    train: Callable[[int, str, str], int]
    report: Callable[[str], None]
    pace: Pace = Pace()
    on_drift: bool = False

    def once(self) -> int:
        """Check the data folder once, and train on the newest span if it is not done. Does not wait.

        Returns:
            The exit code of the run; 0 if there was nothing to do.

        Raises:
            DataRefused: if the span has no manifest.
            SettingsError: if the run folder belongs to another store of ML Metadata.
            StoreError: if the store cannot be read.
        """
        span = self._newest()
        if span is None:
            self.report(f"nothing to do: no span in {self.settings.data.dir} yet")
            return Exit.OK
        if not self._due(span):
            return Exit.OK
        if _is_another_running(self.settings):
            self.report(f"span {span} is postponed: another run of {self.settings.name} is running")
            return Exit.OK
        # Ask again: a run that has just ended recorded its verdict before it released the lock of the run folder.
        due = self._due(span)
        return self.train(span, *due) if due else Exit.OK

    def forever(self) -> None:
        """Watch the data folder and train on each new span, until this process is interrupted.

        Raises:
            SettingsError: if the run folder belongs to another store of ML Metadata.
        """
        span = self._newest()
        tried: set[tuple[int, int]] = set()  # spans and alerts that a training was started for
        if span is not None:
            self._has_new_alert(span, tried)
            self._train_with_retries(span, wait=0)
        while True:
            if self._newest() in (None, span):
                every = duration(self.pace.every)
                self.report(f"waiting for another span in {self.settings.data.dir}, checking every {every}")
            while (newest := self._newest()) in (None, span):
                if newest is not None and self._has_new_alert(newest, tried):
                    break
                time.sleep(self.pace.every)
            assert newest is not None
            if newest == span:
                self._train_with_retries(span, wait=0)
                continue
            span = newest
            self._has_new_alert(span, tried)
            self.report(f"span {span} appeared: waiting {duration(self.pace.settle)}, in case another one follows")
            self._train_with_retries(span, wait=self.pace.settle)

    def _train_with_retries(self, span: int, wait: float) -> None:
        """Wait, then run until there is a verdict, a newer span appears, or no attempt is left."""
        for attempt in range(self.pace.attempts):
            if not self._wait_while_newest(span, wait) or self._train_if_due(span):
                return
            wait = min(self.pace.retry * 2**attempt, self.pace.longest_retry)
            if attempt + 1 < self.pace.attempts:
                self.report(
                    f"span {span}: attempt {attempt + 1} of {self.pace.attempts} failed, trying again in "
                    f"{duration(wait)}"
                )
        self.report(
            f"span {span}: given up after {self.pace.attempts} attempts; `vitpipe run --span {span}` tries again"
        )

    def _train_if_due(self, span: int) -> bool:
        """Wait until no other run is running, then train on the span if it is not done. Return False on failure."""
        reported = False
        try:
            while self._due(span):
                if not _is_another_running(self.settings):
                    due = self._due(span)  # again, as in `once`
                    # A run that ends before it is registered leaves no verdict in the store, and counts as a failure.
                    return not due or (self.train(span, *due) in VERDICTS and bool(self._run_with_verdict(span)))
                if not reported:
                    self.report(f"span {span} waits for another run of {self.settings.name} to end")
                    reported = True
                if not self._wait_while_newest(span, self.pace.every):
                    return True
            return True
        except (DataRefused, StoreError, OSError) as error:
            self.report(str(error))
            return False

    def _run_with_verdict(self, span: int) -> Run | None:
        """Return the newest run that came to a verdict on the span with its current data."""
        digest = manifest.read(ingest.span_folder(self.settings.data.dir, span)).digest()
        for run in _runs_with_verdict(self.settings):
            if (_span(run), run.facts.get("data_digest")) == (span, digest):
                return run
        return None

    def _due(self, span: int) -> tuple[str, str] | None:
        """Return the trigger and the reason of a training on a span. If none is due, report why and return None."""
        if run := self._run_with_verdict(span):
            self.report(f"nothing to do: run {run.name} on span {span} ended: {RunResult(run).state}")
            return None
        runs = _runs_with_verdict(self.settings)
        trained = [_span(run) for run in runs if RunResult(run).state is not RunState.REFUSED]
        last = f"the last training was on span {trained[0]}" if trained else "no span was trained on before"
        reason = f"span {span} appeared; {last}"
        if not self.on_drift or not versions(self.settings.folder / "serving"):  # the first model needs no alert
            return TRIGGER, reason
        if (alert := _newest_alert(self.settings)) is None:
            self.report(f"span {span} waits for an alert of `vitpipe monitor` about the version that serves")
            return None
        return DRIFT_TRIGGER, f"{alert.text} (artifact {alert.report}); {reason}"

    def _has_new_alert(self, span: int, tried: set[tuple[int, int]]) -> bool:
        """Return whether an alert was recorded for which no training on the span was started, and add it to `tried`."""
        if not self.on_drift:
            return False
        try:
            alert = _newest_alert(self.settings)
        except (StoreError, OSError):  # the next check may succeed
            return False
        if alert is None or (span, alert.report) in tried:
            return False
        tried.add((span, alert.report))
        return True

    def _newest(self) -> int | None:
        try:
            return max(ingest.spans(self.settings.data.dir), default=None)
        except OSError:  # a network volume may be unavailable for a while
            return None

    def _wait_while_newest(self, span: int, seconds: float) -> bool:
        """Wait `seconds` and return True, or return False as soon as another span is the newest."""
        until = time.monotonic() + seconds
        while self._newest() in (span, None):
            if (left := until - time.monotonic()) <= 0:
                return True
            time.sleep(min(left, self.pace.every))
        return False


def run_child(command: Sequence[str], report: Callable[[str], None]) -> int:
    """Run a command to its end. If this process is interrupted, terminate the command and wait for its end.

    The command is killed if it does not end within a minute, or if this process is interrupted again.

    Args:
        command: the program and its arguments.
        report: called with a message if a signal ended the command.

    Returns:
        The exit code of the command if it is one of `Exit`, else `Exit.CRASHED`.
    """
    # With a process group of its own, the child does not get the Ctrl-C of a terminal in addition to our SIGTERM.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        raise
    if code < 0:
        report(f"the run was ended by {signal.Signals(-code).name}")
    return code if code in list(Exit) else Exit.CRASHED


def check(settings: Settings) -> None:
    """Check that a watcher can use these settings.

    Raises:
        SettingsError: if `data.span` is set, because a watcher trains on the newest span.
        UsageError: if the data folder is missing.
    """
    data: Path = settings.data.dir
    if settings.data.span is not None:
        raise SettingsError(f"data.span is {settings.data.span}: `watch` trains on the newest span; leave it out")
    if not data.is_dir():
        raise UsageError(f"folder {data} does not exist: name another with --data, or create it and add spans later")


def _runs_with_verdict(settings: Settings) -> list[Run]:
    """Return the runs of this pipeline that came to a verdict, newest first, no matter who started them or where."""
    try:
        with reader(settings.store) as store:
            runs = store.runs(settings.name, details=False)
    except NoStoreError:  # the first run creates the store
        return []
    # A tuning on a span trains no model.
    return [run for run in runs if RunResult(run).exit in VERDICTS and not RunResult(run).is_tuning]


class _Alert(NamedTuple):
    """Alert about the version that serves."""

    report: int  # id of the artifact
    text: str


def _newest_alert(settings: Settings) -> _Alert | None:
    """Return the first alert about the version that serves, from the newest report that has one."""
    pushed = versions(settings.folder / "serving")
    if not pushed:
        return None
    with reader(settings.store) as store:
        for artifact in store.artifacts(MONITORED):
            is_ours = Path(artifact.uri).is_relative_to(settings.folder / "root")
            if is_ours and (text := _first_alerts(artifact.properties).get(str(pushed[-1]))):
                return _Alert(artifact.id, text)
    return None


def _first_alerts(properties: Mapping[str, Value]) -> dict[str, str]:
    """Return the first alert of each version that has one, from the properties of a report; empty if unreadable."""
    try:
        return read(properties, VERSION_ALERTS, dict[str, str])
    except UnreadableError:
        return {}


def _span(run: Run) -> int | None:
    with contextlib.suppress(UnreadableError):
        return RunResult(run).span
    return None


def _is_another_running(settings: Settings) -> bool:
    try:
        with lock_for_run(settings):
            return False
    except AnotherRun:
        return True

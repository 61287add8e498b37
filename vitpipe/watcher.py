"""Retraining when a new span appears. ML Metadata records which spans are done; each run is a child process."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.data import ingest
from components.data.ingest import manifest
from components.errors import AnotherRun, DataRefused, Exit, SettingsError, StoreError, UsageError
from pipeline.console.duration import duration
from pipeline.metadata.address import NoStoreError
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Run
from pipeline.result.run_result import RunResult, RunState
from pipeline.run_lock import lock_for_run
from pipeline.settings import Settings

TRIGGER = "span"  # of the runs that are started here, as they record it
# Another run on the same data would end in the same way. One that crashed might not.
VERDICTS = (Exit.OK, Exit.DATA_REFUSED, Exit.NOT_BLESSED, Exit.NOT_SERVABLE)
_GRACE = 60.0  # seconds that a run which is asked to end may take


@dataclass(frozen=True)
class Pace:
    """Seconds, and how often."""

    every: float = 10.0  # between two looks at the data folder: a network volume does not say when something lands
    settle: float = 30.0  # after a span has landed, in case another one follows
    retry: float = 60.0  # after a first failure; doubled with each further one
    longest_retry: float = 3600.0
    attempts: int = 8  # at one span


@dataclass(frozen=True)
class Watcher:
    """Trains on the newest span of the data folder, once.

    train: trains on that span for that reason, and gives the exit code of the run. say: tells a person.
    """

    settings: Settings
    train: Callable[[int, str], int]
    say: Callable[[str], None]
    pace: Pace = Pace()

    def once(self) -> int:
        """One look, without any waiting: the exit code of the run, and 0 where there was nothing to do.

        Raises DataRefused for a span without a manifest, StoreError, and SettingsError for a store that is not the one
        of the run folder.
        """
        span = self._newest()
        if span is None:
            self.say(f"nothing to do: no span in {self.settings.data.dir} yet")
            return Exit.OK
        if not self._due(span):
            return Exit.OK
        if _another_run(self.settings):
            self.say(f"span {span} is postponed: another run of {self.settings.name} is running")
            return Exit.OK
        reason = self._due(span)  # again: what another run came to is in the store before it lets go of the folder
        return self.train(span, reason) if reason else Exit.OK

    def forever(self) -> None:
        """Look again and again, until this process is interrupted."""
        span = self._newest()
        if span is not None:
            self._attend(span, wait=0)
        while True:
            if self._newest() in (None, span):
                every = duration(self.pace.every)
                self.say(f"waiting for another span in {self.settings.data.dir}, looking every {every}")
            while (landed := self._newest()) in (None, span):
                time.sleep(self.pace.every)
            assert landed is not None
            span = landed
            self.say(f"span {span} landed: {duration(self.pace.settle)} to see whether another follows")
            self._attend(span, wait=self.pace.settle)

    def _attend(self, span: int, wait: float) -> None:
        """Try until there is a verdict, a newer span, or the last attempt was one too many."""
        for attempt in range(self.pace.attempts):
            if not self._stays_newest(span, wait) or self._settled(span):
                return
            wait = min(self.pace.retry * 2**attempt, self.pace.longest_retry)
            if attempt + 1 < self.pace.attempts:
                self.say(
                    f"span {span}: attempt {attempt + 1} of {self.pace.attempts} failed, again in {duration(wait)}"
                )
        self.say(f"span {span}: given up after {self.pace.attempts} attempts; `vitpipe run --span {span}` tries again")

    def _settled(self, span: int) -> bool:
        """Train on it if that is to be done, once no other run goes on. False where it failed."""
        said = False
        try:
            while self._due(span):
                if not _another_run(self.settings):
                    reason = self._due(span)  # again, as in `once`
                    # A run that was refused before it was one leaves nothing in the store.
                    return not reason or (self.train(span, reason) in VERDICTS and bool(self._verdict_on(span)))
                if not said:
                    self.say(f"span {span} waits for another run of {self.settings.name} to end")
                    said = True
                if not self._stays_newest(span, self.pace.every):
                    return True
            return True
        except (DataRefused, StoreError, OSError) as error:
            self.say(str(error))
            return False

    def _verdict_on(self, span: int) -> Run | None:
        """The newest run that had its verdict on a span."""
        digest = manifest.read(ingest.span_folder(self.settings.data.dir, span)).digest()
        for run in _with_verdict(self.settings):
            if (_span(run), run.facts.get("data_digest")) == (span, digest):
                return run
        return None

    def _due(self, span: int) -> str:
        """Why to train on a span. Empty, which is said, where a run has had its verdict on it."""
        if run := self._verdict_on(span):
            self.say(f"nothing to do: run {run.name} was on span {span} and ended: {RunResult(run).state}")
            return ""
        runs = _with_verdict(self.settings)
        trained = [_span(run) for run in runs if RunResult(run).state is not RunState.REFUSED]
        last = f"{trained[0]} was the last one trained on" if trained else "none was trained on before"
        return f"span {span} landed, {last}"

    def _newest(self) -> int | None:
        try:
            return max(ingest.spans(self.settings.data.dir), default=None)
        except OSError:  # a network volume that is away for a while
            return None

    def _stays_newest(self, span: int, seconds: float) -> bool:
        """Wait so long. False, and at once, when another span is the newest."""
        until = time.monotonic() + seconds
        while self._newest() in (span, None):
            if (left := until - time.monotonic()) <= 0:
                return True
            time.sleep(min(left, self.pace.every))
        return False


def run_child(command: Sequence[str], say: Callable[[str], None]) -> int:
    """Run a command to its end, and end it when this process is interrupted. 1 where a signal ended it, which is said.

    Interrupted again while it ends, it is killed.
    """
    # In a group of its own: a terminal interrupts this process alone, and not the run as well, in the midst of its end.
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
        say(f"the run was ended by {signal.Signals(-code).name}")
    return code if code in list(Exit) else Exit.CRASHED


def check(settings: Settings) -> None:
    """Raise SettingsError for a setting that a watcher cannot follow, and UsageError if the folder is missing."""
    data: Path = settings.data.dir
    if settings.data.span is not None:
        raise SettingsError(f"data.span is {settings.data.span}: `watch` trains on the newest span; leave it out")
    if not data.is_dir():
        raise UsageError(f"no folder {data}: name another with --data, or make it, and spans may land later")


def _with_verdict(settings: Settings) -> list[Run]:
    """The runs of this pipeline, the newest first, that ended with one: here, on a cluster, by hand or not."""
    try:
        with reader(settings.store) as store:
            runs = store.runs(settings.name, details=False)
    except NoStoreError:  # which the first run makes
        return []
    return [run for run in runs if RunResult(run).exit in VERDICTS]


def _span(run: Run) -> int | None:
    with contextlib.suppress(UnreadableError):
        return RunResult(run).span
    return None


def _another_run(settings: Settings) -> bool:
    try:
        with lock_for_run(settings):
            return False
    except AnotherRun:
        return True

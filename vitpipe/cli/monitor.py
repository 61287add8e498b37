"""`vitpipe monitor`: a comparison of traffic with the training images."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import Exit, ServerError, UsageError
from components.quantities import quantity
from pipeline.console.display import Display
from pipeline.console.logs import own_stderr, redirected, runs_option
from pipeline.console.terminal import json_text, print_json, print_line
from pipeline.error_messages import explain_error
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.panels import DEPLOY, example
from vitpipe.cli.run import terminate
from vitpipe.cli.tables import local_time, print_rows, print_warnings

if TYPE_CHECKING:
    from pipeline.monitoring.monitor import Monitor, RecordedReport
    from pipeline.monitoring.report import LogProblem, MonitorReport, Window, WindowFinding

app = typer.Typer()

_POLL = 5.0  # seconds between two readings of a log that is followed
_LAST_READING = 10.0  # seconds to read on after Ctrl-C or SIGTERM, before a cluster would kill the process
_STEP = 0.1  # seconds within which Ctrl-C ends the wait
_NAMED = 5  # windows that are named for a check
_MOST_UNRECORDED = 1_000  # windows without an alert that one report of a log that is followed has


@app.command(
    rich_help_panel=DEPLOY,
    epilog=example(
        "vitpipe monitor sample --logs traffic.jsonl", "vitpipe monitor sample --logs logs --window 1h --follow"
    ),
)
def monitor(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the pipeline whose models serve.")],
    logs: Annotated[
        Path,
        typer.Option(metavar="PATH", help="Log file, or folder with files `*.jsonl` and `*.tfrecord*`."),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table with the columns `id` and `label`: the true classes of answers."),
    ] = None,
    window: Annotated[
        str, typer.Option(metavar="N|TIME", help="Answers in a window, or its length, such as `30m`, `1h` or `1d`.")
    ] = "1000",
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Continue to read what is appended to the logs. Stop with Ctrl-C or SIGTERM."),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Use only answers from this time on, such as `2026-01-31T12:00:00Z`, or `1h` for an hour ago.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="Override a bound, such as `monitor.errors.stop=0.1`, or name an engine with `beam.*`. Repeatable.",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for images that are worth labelling, with a table of them."),
    ] = None,
    sample_images: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Number of these images.")] = 200,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Compare what a model server logged with the model's training images and test answers.

    Each window of traffic is checked: failed requests, unusable images, drift of images, of answers and of confidence,
    and the expected or true accuracy. Exits with 3 if a check raises an alert, or with 4 if only the accuracy is too
    low. Unchanged traffic raises a warning or an alert with a probability of at most `monitor.false_alerts`.
    """
    if follow and sample:
        raise UsageError("--sample and --follow cannot be used together: leave one of them out")
    signal.signal(signal.SIGTERM, terminate)
    status = _Status()
    with status.shown("reading the reference of the model"):
        from pipeline.monitoring.arguments import engine, is_engine_setting
        from pipeline.monitoring.monitor import Monitor
        from pipeline.monitoring.sample import check_folder

        if follow and (flag := next(filter(is_engine_setting, overrides or ()), None)):
            raise UsageError(f"--set {flag} has no effect with --follow, which reads logs without an engine: remove it")
        run_tasks = None if follow else engine(overrides or (), status.warn)

        if sample:
            check_folder(sample)
        number = sample_images if sample else 0
        opened = Monitor(name, logs, labels, window, overrides or (), runs, number, follow, since, status.update)
    if follow:
        code = _follow(opened, status, as_json)
        _warn_unused_labels(opened)
        raise typer.Exit(code)
    with ExitStack() as stack:
        if run_tasks:
            with status.shown("decoding and measuring the images on the engine"):
                stack.enter_context(opened.measured_by(run_tasks))
        with status.shown("reading the logs"):
            report = opened.read_all()
    if as_json:
        print_json(report.as_json())
    else:
        print_rows(_COLUMNS, map(_row, report.windows))
    _print_rest(report)
    _print_unchecked(report, set())
    _warn_unused_labels(opened)
    sys.stdout.flush()
    if not report.windows:
        print_line(f"no answer is as new as --since {since}, so no report was recorded", sys.stderr)
        raise typer.Exit(report.exit)
    recorded = None
    try:
        recorded = _record(opened, report, status)
    finally:  # even if it cannot be recorded
        _send_alerts(opened, report, recorded, status)
    if sample:
        images = opened.write_sample(sample, recorded.artifact)
        print_line(f"{sample}: {quantity(images, 'image')}; enter their classes in {sample / 'labels.csv'}", sys.stderr)
    raise typer.Exit(report.exit)


class _Status:
    """Line that says what is being done, beside a spinner on a terminal. Output of libraries is discarded meanwhile."""

    _display: Display

    @contextmanager
    def shown(self, text: str) -> Iterator[None]:
        """Show a text until the block ends."""
        with own_stderr() as stderr, Display(stderr) as self._display, redirected(Path(os.devnull)):
            self._display.started(text)
            yield

    def update(self, answers: int, share: float) -> None:
        """Show how much of the logs was read.

        Args:
            answers: number of answers.
            share: share of the bytes of the logs.
        """
        self._display.update(f"reading the logs: {answers:,} answers, {share:.0%}")

    def warn(self, message: str) -> None:
        """Print a warning while a text is shown, when a line to standard error would be discarded."""
        self._display.line(f"warning: {message}")


def _follow(opened: "Monitor", status: _Status, as_json: bool) -> int:
    """Print windows as they are completed, and record them, until Ctrl-C or SIGTERM. Return the exit code."""
    unrecorded: list[Window] = []
    ends = {Exit.OK}
    counts: dict[str, int] = {}  # of the problems that were printed
    reasons: set[tuple[int, str]] = set()  # of the missing checks that were printed

    def read(final: bool) -> None:
        windows = opened.read(final)
        while True:
            with status.shown("reading the logs"):
                window = next(windows, None)
            if window is None:
                break
            if as_json:
                print(json_text(window.as_json(), None))
            else:
                print_rows(_COLUMNS, [_row(window)])
            sys.stdout.flush()
            report = opened.report([window])
            _print_findings(report)
            _print_unchecked(report, reasons)
            ends.add(report.exit)
            unrecorded.append(window if window.alerts else window.model_copy(update={"farthest": []}))
            if window.alerts or len(unrecorded) >= _MOST_UNRECORDED:
                record()
        for problem in opened.report([]).problems:
            # Twice as many as before are worth a line; one more is not.
            if problem.count >= 2 * counts.get(problem.reason, 0):
                counts[problem.reason] = problem.count
                _print_problem(problem)

    def record() -> None:
        report = opened.report(unrecorded)
        recorded = None
        try:
            recorded = _record(opened, report, status)
        except Exception as error:  # the store may answer again later
            print_warnings([f"not recorded: {quantity(len(unrecorded), 'window')}: {explain_error(error) or error}"])
        unrecorded.clear()  # before alerts are sent, because a signal may end that
        _send_alerts(opened, report, recorded, status)

    stopped: list[int] = []

    def stop(signal_number: int, _: object) -> None:
        # The answers that were read must reach their windows first. A second signal interrupts that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, terminate)
        opened.stop_within(_LAST_READING)
        stopped.append(signal_number)

    for signal_number in signal.SIGINT, signal.SIGTERM:
        signal.signal(signal_number, stop)
    try:
        while not stopped:
            read(final=False)
            due = time.monotonic() + _POLL
            with status.shown(f"waiting for answers after {opened.answered:,}"):
                while not stopped and time.monotonic() < due:
                    time.sleep(_STEP)
        read(final=True)
    finally:
        if unrecorded:
            record()
    if signal.SIGTERM in stopped:
        return 128 + signal.SIGTERM
    return max(ends, key=(Exit.OK, Exit.NOT_BLESSED, Exit.DATA_REFUSED).index)


def _record(opened: "Monitor", report: "MonitorReport", status: _Status) -> "RecordedReport":
    with status.shown("recording the report"):
        recorded = opened.record(report)
    options = f"--pipeline {opened.name}{runs_option(opened.runs)}"
    print_line(f"report: artifact {recorded.artifact}, see `vitpipe lineage {recorded.artifact} {options}`", sys.stderr)
    return recorded


def _send_alerts(
    opened: "Monitor", report: "MonitorReport", recorded: "RecordedReport | None", status: _Status
) -> None:
    try:
        with status.shown("sending alerts to the webhook"):
            opened.send_alerts(report.windows, recorded)
    except ServerError as error:
        print_warnings([error])


_COLUMNS = ("window", "version", "from", "answers", "failed", "invalid", "p95 ms", "expected", "accuracy", "result")


def _row(window: "Window") -> tuple[str, ...]:
    return (
        str(window.number),
        str(window.version),
        local_time(window.start) if window.start else "-",
        f"{window.answers:,}",
        f"{window.failed:,}",
        f"{window.invalid:,}",
        f"{window.latency_ms['p95']:.1f}" if window.latency_ms else "-",
        _with_interval(window.expected_accuracy, window.expected_accuracy_interval),
        _with_interval(window.accuracy, window.accuracy_interval),
        quantity(len(window.alerts), "alert") if window.alerts else "warnings" if window.warnings else "ok",
    )


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    return "-" if value is None or interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _print_rest(report: "MonitorReport") -> None:
    """Print what is wrong with the log and with the traffic."""
    for problem in report.problems:
        _print_problem(problem)
    _print_findings(report)


def _print_problem(problem: "LogProblem") -> None:
    print_line(f"{problem.count:,} in the log: {problem.reason}, first: {', '.join(problem.places)}", sys.stderr)


def _warn_unused_labels(opened: "Monitor") -> None:
    if message := opened.unused_labels:
        print_warnings([message])


def _print_unchecked(report: "MonitorReport", printed: set[tuple[int, str]]) -> None:
    """Print the checks that windows do not have, once for each version and reason.

    Args:
        report: the report.
        printed: versions and reasons that were printed before, to which the new ones are added.
    """
    groups: dict[tuple[int, str], tuple[dict[str, None], list[int]]] = {}
    for window in report.windows:
        for missing in window.unchecked:
            checks, numbers = groups.setdefault((window.version, missing.reason), ({}, []))
            checks[missing.check] = None
            if window.number not in numbers[-1:]:
                numbers.append(window.number)
    for (version, reason), (checks, numbers) in groups.items():
        if (version, reason) not in printed:
            print_line(f"not checked in {_place(numbers, version)}: {', '.join(checks)}: {reason}", sys.stderr)
            printed.add((version, reason))


def _place(windows: list[int], version: int) -> str:
    first = ", ".join(map(str, windows[:_NAMED]))
    more = f" and {len(windows) - _NAMED:,} more" if len(windows) > _NAMED else ""
    return f"window{'s' if len(windows) > 1 else ''} {first}{more} of version {version}"


def _print_findings(report: "MonitorReport") -> None:
    for kind, level in (("alert", "stop"), ("warning", "warning")):
        groups: dict[tuple[int, str], list[tuple[int, WindowFinding]]] = {}
        for window in report.windows:
            for finding in window.findings:
                if finding.level == level:
                    groups.setdefault((window.version, finding.check), []).append((window.number, finding))
        for (version, _), findings in groups.items():
            where = _place([number for number, _ in findings], version)
            print_line(f"{kind} in {where}: {findings[0][1]}", sys.stderr)
    if report.alerts:
        print_line("the checks and their thresholds are explained in docs/monitoring.md", sys.stderr)

"""`vitpipe watch`: retrain when a new span appears."""

import signal
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from components.errors import Exit
from pipeline.console.terminal import print_line
from pipeline.settings import load
from vitpipe.cli.options import Config, Data, Overrides
from vitpipe.cli.tables import when
from vitpipe.watcher import TRIGGER, Pace, Watcher, check, run_child

_DAY = 24 * 3600.0  # seconds


def watch(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and wait for nothing, as cron wants it.")] = False,
    every: Annotated[
        float,
        typer.Option(min=0.1, max=_DAY, help="Seconds between two looks at the data folder."),
    ] = Pace.every,
    settle: Annotated[
        float,
        typer.Option(
            min=0,
            max=_DAY,
            help="Seconds to wait after a span has landed, in case another one follows.",
        ),
    ] = Pace.settle,
) -> None:
    """Train, gate and push when a new span lands; ends with Ctrl-C.

    A span is trained on once: ML Metadata knows which ones were. A run that crashes is tried again, later and later.
    """
    settings = load(config, overrides, data={} if data is None else {"dir": str(data.expanduser())})
    check(settings)
    run = [sys.executable, "-P", "-m", "vitpipe", "run", "-c", config]  # -P: not what lies in this folder
    run += [] if data is None else ["--data", str(data)]
    run += [word for override in overrides or [] for word in ("--set", override)]

    def train(span: int, reason: str) -> int:
        _say(f"{reason}: a run starts")
        return run_child([*run, "--span", str(span), "--trigger", TRIGGER, "--reason", reason], _say)

    for asked in signal.SIGTERM, signal.SIGHUP:
        if signal.getsignal(asked) is not signal.SIG_IGN:  # nohup
            signal.signal(asked, signal.default_int_handler)
    watcher = Watcher(settings, train, _say, Pace(every, settle))
    try:
        if once:
            raise typer.Exit(watcher.once())
        watcher.forever()
    except KeyboardInterrupt:
        _say("stopped")
        raise typer.Exit(Exit.CRASHED if once else Exit.OK) from None


def _say(line: str) -> None:
    print_line(f"{when(datetime.now(UTC))} {line}", sys.stderr)

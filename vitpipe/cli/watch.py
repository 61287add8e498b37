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
from vitpipe.cli.panels import RETRAIN, example
from vitpipe.cli.tables import local_time
from vitpipe.watcher import Pace, Watcher, check, run_child

app = typer.Typer()

_DAY = 24 * 3600.0  # seconds


@app.command(
    rich_help_panel=RETRAIN,
    epilog=example("vitpipe watch -c pets.yaml", "vitpipe watch -c pets.yaml --once"),
)
def watch(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    once: Annotated[
        bool, typer.Option("--once", help="Check once, train if there is a new span, and exit. For use with cron.")
    ] = False,
    on_drift: Annotated[
        bool,
        typer.Option(
            "--on-drift", help="Train on a new span only after `monitor` raised an alert about the model that serves."
        ),
    ] = False,
    every: Annotated[
        float,
        typer.Option(min=0.1, max=_DAY, metavar="SECONDS", help="Seconds between two checks of the data folder."),
    ] = Pace.every,
    settle: Annotated[
        float,
        typer.Option(
            min=0,
            max=_DAY,
            metavar="SECONDS",
            help="Seconds to wait after a span has appeared, in case another one follows.",
        ),
    ] = Pace.settle,
) -> None:
    """Train, check and push a model whenever a new span of data appears.

    Each span is trained on once; ML Metadata records which spans are done. A run that crashes is tried again after a
    growing delay. Stop watching with Ctrl-C.
    """
    settings = load(config, overrides, data={} if data is None else {"dir": str(data.expanduser())})
    check(settings)
    # -P keeps Python from importing modules of the current folder.
    run = [sys.executable, "-P", "-m", "vitpipe", "run", "-c", config]
    run += [] if data is None else ["--data", str(data)]
    run += [word for override in overrides or [] for word in ("--set", override)]

    def train(span: int, trigger: str, reason: str) -> int:
        _say(f"{reason}: a run starts")
        return run_child([*run, "--span", str(span), "--trigger", trigger, "--reason", reason], _say)

    for signal_number in signal.SIGTERM, signal.SIGHUP:
        if signal.getsignal(signal_number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(signal_number, signal.default_int_handler)
    watcher = Watcher(settings, train, _say, Pace(every, settle), on_drift)
    try:
        if once:
            raise typer.Exit(watcher.once())
        watcher.forever()
    except KeyboardInterrupt:
        _say("stopped")
        raise typer.Exit(Exit.CRASHED if once else Exit.OK) from None


def _say(line: str) -> None:
    print_line(f"{local_time(datetime.now(UTC))} {line}", sys.stderr)

"""`vitpipe tune`: search for better settings on this machine."""

import shlex
import signal
from typing import Annotated

import typer

from pipeline.console.logs import display_path
from pipeline.console.terminal import print_line
from pipeline.result.run_result import RunResult
from pipeline.result.verdict import verdict
from pipeline.run import plan
from pipeline.run import tune as tune_settings
from pipeline.run_facts import accepted_checks, logs_folder
from pipeline.settings import load
from trainer.trials import Trial, read_trials
from vitpipe.cli.options import Accept, Config, Data, DryRun, Overrides, Span
from vitpipe.cli.panels import RUN, example
from vitpipe.cli.run import print_plan, terminate
from vitpipe.cli.tables import print_rows

app = typer.Typer()

_BEST = 5  # trials in the table


@app.command(
    rich_help_panel=RUN,
    epilog=example(
        "vitpipe tune -c cifar10-cpu --trials 20",
        "vitpipe tune -c sample --set tune.space.training.weight_decay='{low: 0.001, high: 0.5, log: true}'",
    ),
)
def tune(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Number of trials, including those of an interrupted search.",
            show_default="the setting tune.trials",
        ),
    ] = None,
    span: Span = None,
    accept: Accept = None,
    reason: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Why the search is started, or why the checks are accepted. Recorded in ML Metadata.",
        ),
    ] = "",
    dry_run: DryRun = False,
) -> None:
    """Search for better settings of model, augmentation and training, judged by val.

    The search space is the setting `tune.space`. A trial that is worse than most at the same epoch ends early. If the
    search is interrupted, the same command continues it. `vitpipe run --set training.tuned=true` trains with the
    result.
    """
    data_settings: dict[str, object] = {} if data is None else {"dir": str(data.expanduser())}
    if span is not None:
        data_settings["span"] = span
    flags = [*(overrides or []), *([f"tune.trials={trials}"] if trials is not None else [])]
    settings, checks = load(config, flags, data=data_settings), accept or []
    accepted_checks(checks, reason, flag="--")
    if dry_run:
        print_plan(plan(settings, overrides=flags, tune=True))
        return
    signal.signal(signal.SIGTERM, terminate)
    result = tune_settings(settings, accept=checks, reason=reason, overrides=flags)
    ending = verdict(result)
    if result.trials:
        _print_best(read_trials(result.trials), result)
    for line in ending.lines:
        print_line(line)
    if result.tuning:
        words = ["-c", config, *(["--data", str(data)] if data else [])]
        words += ["--span", str(span)] if span is not None else []
        words += _without_searched(overrides or [], result)
        print_line(f"train with these values: vitpipe run {shlex.join(words)} --set training.tuned=true")
    if ending.node:
        print_line(f"see {display_path(logs_folder(settings, result.name) / ending.node)}.log")
    raise typer.Exit(ending.exit)


def _print_best(trials: list[Trial], result: RunResult) -> None:
    order = sorted(trials, key=lambda trial: (trial.state != "complete", -(trial.accuracy or 0), trial.number))
    names = sorted({name for trial in trials for name in trial.values})
    print_rows(
        ("trial", "state", "val", "epoch", "seconds", *names),
        [
            (
                str(trial.number),
                trial.state,
                "" if trial.accuracy is None else f"{trial.accuracy:.4f}",
                str(trial.epoch or ""),
                f"{trial.seconds:.0f}",
                *(_text(trial.values.get(name)) for name in names),
            )
            for trial in order[:_BEST]
        ],
    )


def _without_searched(overrides: list[str], result: RunResult) -> list[str]:
    """Return the overrides as flags, without those that `training.tuned` would reject."""
    searched = result.tuning.values if result.tuning else {}
    return [word for one in overrides if one.partition("=")[0] not in searched for word in ("--set", one)]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

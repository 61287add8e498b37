"""The first lines on a run's page: its state in a sentence, the reasons, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.console.logs import runs_option
from pipeline.metadata.properties import UnreadableError
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.verdict import verdict
from pipeline.settings import presets
from vitpipe.ui.training import Training


class Command(NamedTuple):
    """Line for a terminal, with its purpose."""

    purpose: str
    line: str


@dataclass(frozen=True)
class Headline:
    """State of a run in a sentence, the reasons for it, and commands to continue with."""

    title: str
    lines: Sequence[str] = ()
    commands: Sequence[Command] = ()


def headline(result: RunResult, training: Training | None, runs: Path) -> Headline:
    """Return the headline of a run.

    Args:
        result: Outcome of the run.
        training: Its training; None if it has none.
        runs: Folder of the run folders, as the user named it.
    """
    state, name = result.state, shlex.quote(result.name)
    where = runs_option(runs)
    run = f"vitpipe {'tune' if result.is_tuning else 'run'} -c {_config(result)}"
    why = Command("Show all checks with their values and bounds", f"vitpipe why {name}{where}")
    match state:
        case RunState.RUNNING:
            return Headline(_progress(result, training))
        case RunState.UNREADABLE:
            return Headline("This version of vitpipe cannot read how the run ended.")
        case RunState.DIED:
            return Headline(
                "The run has no result: its process was killed, or the machine was restarted.",
                commands=[Command("Start it again with the same options; finished steps come from the cache", run)],
            )
        case RunState.FAILED:
            commands = [Command("Show the steps of the run", f"vitpipe runs show {name}{where}")]
            if result.failures and not result.on_cluster:
                log = runs / result.pipeline / "logs" / result.name / f"{result.failures[0].node}.log"
                commands.insert(0, Command("Read the log of the step", f"less {shlex.quote(str(log))}"))
            return Headline("A step failed.", _reasons(result), commands)
        case RunState.REFUSED:
            return Headline(
                "The data was refused, so nothing was trained.",
                _reasons(result),
                [
                    why,
                    Command(
                        "Write a new span once the images are corrected",
                        f"vitpipe data prepare images --source FOLDER --out {_data(result)}",
                    ),
                    Command("Accept a check if the data is right", f'{run} --accept CHECK --reason "..."'),
                ],
            )
        case RunState.NOT_BLESSED:
            return Headline(
                "The model missed a bound, so it was not pushed.",
                _reasons(result),
                [why, Command("Push it anyway", f'vitpipe bless {name}{where} --reason "..."')],
            )
        case RunState.NOT_SERVABLE:
            return Headline("The model cannot be served, so it was not pushed.", _reasons(result), [why])
    if result.pushed:
        models = Command("List the pushed models, the one that serves last", f"vitpipe models list{where}")
        return Headline(f"Version {result.pushed} was pushed.", commands=[models])
    if result.is_tuning:
        train = Command("Train with the best values", f"vitpipe run -c {_config(result)} --set training.tuned=true")
        return Headline("The search for better settings has ended.", _reasons(result), [train])
    return Headline("No new model was pushed.", _reasons(result))


def _reasons(result: RunResult) -> Sequence[str]:
    """Return the lines that the command printed at the end of the run."""
    try:
        return verdict(result).lines
    except UnreadableError as error:
        return [str(error)]


def _progress(result: RunResult, training: Training | None) -> str:
    running = [one.node for one in result.record.executions if one.state in ("new", "running")]
    if not running:
        return "The run is running."
    if "Trainer" in running and training:
        of = f" of {training.planned}" if training.planned else ""
        return f"Trainer is running: epoch {training.epochs[-1].epoch}{of} is finished."
    return f"{' and '.join(running)} {'is' if len(running) == 1 else 'are'} running."


def _data(result: RunResult) -> str:
    data = result.settings.get("data")
    return shlex.quote(str(data["dir"])) if isinstance(data, dict) and "dir" in data else "DATA"


def _config(result: RunResult) -> str:
    """Return the preset that the pipeline is named after, or a placeholder."""
    return result.pipeline if result.pipeline in presets() else "FILE"

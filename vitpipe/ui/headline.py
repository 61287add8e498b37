"""The first lines on a run's page: its state in a sentence, the reasons, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.metadata.properties import Unreadable
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.verdict import verdict
from vitpipe.ui.training import Training


@dataclass(frozen=True)
class Headline:
    """State of a run for a person. `commands` are lines for a terminal, each with what it is for."""

    title: str
    lines: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()


def headline(result: RunResult, training: Training | None, runs: Path) -> Headline:
    """Return the headline of a run.

    Args:
        result: Outcome of the run.
        training: Its training; None if it has none.
        runs: Folder of the run folders, as the user named it.
    """
    state = result.state
    if state is RunState.RUNNING:
        return Headline(_progress(result, training))
    if state is RunState.UNREADABLE:
        return Headline("This version cannot read how the run ended.")
    try:
        lines = verdict(result).lines
    except Unreadable as error:
        lines = [str(error)]
    name = shlex.quote(result.name)
    where = "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"
    why = ("all checks with values and bounds", f"vitpipe why {name}{where}")
    if state is RunState.DIED:
        title = "The run ended without a result: its process was killed, or the machine was restarted."
        return Headline(
            title, (), [("start it again; finished steps come from the cache", f"vitpipe run -c {_config(result)}")]
        )
    if state is RunState.FAILED:
        return Headline(
            "The run failed.", lines, [("its steps and what they read", f"vitpipe runs show {name}{where}")]
        )
    if state is RunState.REFUSED:
        return Headline(
            "The data were refused, so nothing was trained.",
            lines,
            [
                why,
                (
                    "after you have corrected the images",
                    f"vitpipe data prepare images --source FOLDER --out {_data(result)}",
                ),
                ("if the data are right", f'vitpipe run -c {_config(result)} --accept CHECK --reason "..."'),
            ],
        )
    if state is RunState.NOT_BLESSED:
        return Headline(
            "The model missed a bound, so it was not pushed.",
            lines,
            [why, ("to push it anyway", f'vitpipe bless {name}{where} --reason "..."')],
        )
    if state is RunState.NOT_SERVABLE:
        return Headline("The model cannot be served, so it was not pushed.", lines, [why])
    if result.pushed:
        return Headline(
            f"Version {result.pushed} was pushed.",
            lines,
            [("all pushed models, and which one serves", f"vitpipe models list{where}")],
        )
    return Headline("The run is done; no new model was pushed.", lines)


def _progress(result: RunResult, training: Training | None) -> str:
    running = [one.node for one in result.record.executions if one.state in ("new", "running")]
    if not running:
        return "The run is running."
    if "Trainer" in running and training:
        of = f" of {training.planned}" if training.planned else ""
        return f"Trainer is running: {training.epochs[-1].epoch}{of} epochs are finished."
    return f"{' and '.join(running)} {'is' if len(running) == 1 else 'are'} running."


def _data(result: RunResult) -> str:
    data = result.settings.get("data")
    return shlex.quote(str(data["dir"])) if isinstance(data, dict) and "dir" in data else "DATA"


def _config(result: RunResult) -> str:
    """Return the preset that the pipeline is named after, or a placeholder."""
    from pipeline.settings import presets

    return result.pipeline if result.pipeline in presets() else "FILE"

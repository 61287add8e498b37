"""Trials of a tuning as a table of JSON lines. Imports neither TensorFlow nor Optuna."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from trainer.disk import atomic_write
from trainer.settings import Group

TRIALS = "trials.jsonl"  # file with the table


class Trial(Group):
    """One trial that has ended."""

    number: int  # from 1
    state: Literal["complete", "pruned", "failed"]
    values: dict[str, Any]  # values by the dotted names of their settings
    accuracy: float | None  # highest accuracy on val; None for a failed trial
    epoch: int | None  # epoch with that accuracy
    epochs: int  # epochs that were trained
    seconds: float
    error: str = ""  # why the trial failed

    def __str__(self) -> str:
        """Return one line for the log."""
        values = describe(self.values)
        if self.state == "failed":
            return f"trial {self.number}: failed, {self.error}; {values}"
        ending = f"pruned after epoch {self.epochs}, " if self.state == "pruned" else ""
        figures = f"val {self.accuracy:.4f} in epoch {self.epoch}, {self.seconds:.0f} s"
        return f"trial {self.number}: {ending}{figures}; {values}"


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the completed trial with the highest accuracy on val, the first of equals; None if none completed."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: trial.accuracy or 0.0, default=None)


def write_trials(trials: Sequence[Trial], folder: Path) -> None:
    """Write the table.

    Args:
        trials: The trials.
        folder: Folder of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / TRIALS) as file:
        file.write("".join(f"{json.dumps(trial.model_dump())}\n" for trial in trials).encode())


def read_trials(folder: Path) -> list[Trial]:
    """Read the table from a folder."""
    return [Trial.model_validate_json(line) for line in (folder / TRIALS).read_text("utf-8").splitlines()]


def describe(values: Mapping[str, Any]) -> str:
    """Return values by the dotted names of their settings in words."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )

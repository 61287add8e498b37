"""Messages between the study of a tuning, `trainer.tune`, and the processes that train, `trainer.trial_worker`.

The first message to a process is a `Job`, answered by None once its images are decoded. Each further message is a
`Task`, answered by a `Progress` after each epoch and by an `Ending`. Each `Progress` is answered by a boolean: whether
to prune the trial.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trainer.search_space import TrialSettings

Row = dict[str, float]  # as in `trainer.history`, whose module would load TensorFlow


class Job(NamedTuple):
    """Inputs of all trials of a process, as for `trainer.run.read_inputs`."""

    settings: TrialSettings  # settings that are not searched
    config: Mapping[str, Any]
    schema: str
    transform_graph: str
    train_files: list[str]
    val_files: list[str]


class Task(NamedTuple):
    """One trial to train."""

    settings: TrialSettings
    folder: Path  # of its checkpoints and its history


class Progress(NamedTuple):
    """Figures of all epochs of a trial so far. After an interruption they begin with those of the first attempt."""

    rows: list[Row]


class Ending(NamedTuple):
    """End of a trial."""

    state: Literal["complete", "pruned", "failed"]
    error: str = ""  # why it failed
    rows: Sequence[Row] = ()  # figures of all epochs of a completed trial

"""Search for better settings with Optuna: trials in processes of their own, judged by val, in a study that resumes.

This process alone reads and writes the study. The processes that train only send the figures of their epochs, so one of
them can be killed at any moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from trainer.search_space import Dimension, TrialSettings, TuneSettings, apply, is_whole, shorten
from trainer.trial_messages import Ending, Job, Progress, Row, Task
from trainer.trials import Trial

log = logging.getLogger(__name__)

JOURNAL = "study.journal"  # file of the study
_NAME = "tuning"  # name of the study in its file
_ATTEMPTS = 2  # attempts at a trial whose process dies, for example because memory runs out
_SECONDS_PER_LINE = 30  # between two log lines about the epochs
_MOST_TRIALS = 10  # of one process, because each compilation leaves about 80 MB of memory behind
_ENDS = 10  # seconds in which a process must end after its connection is closed

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
# Attributes of a trial in the study.
_NUMBER, _ROWS, _ERROR, _ATTEMPT = "number", "rows", "error", "attempt"


def search(job: Job, tune: TuneSettings, folder: Path) -> list[Trial]:
    """Run trials until the study has as many as the settings ask for.

    The first trial has the values of the settings themselves, if the search space contains them. A study whose process
    was killed continues: trials that were running are repeated with the same values, from their own checkpoints.

    Args:
        job: Settings and data of the training.
        tune: Settings of the tuning.
        folder: Folder of the study. Its name is a digest of everything that affects a trial.

    Returns:
        All trials of the study, in the order of their numbers.

    Raises:
        RuntimeError: If no trial was completed, or a process cannot read the data.
    """
    study = Study(job.settings, tune, folder)
    dimensions = tune.space.dimensions()
    log.info("%d trials over %s", tune.trials, "; ".join(f"{name} {values}" for name, values in dimensions.items()))
    if done := study.ended():
        log.info("%d of them ended in an earlier run", len(done))
    cores = max(1, len(os.sched_getaffinity(0)) // tune.processes) if tune.processes > 1 else None
    processes: list[_Process] = []

    def left() -> int:
        return tune.trials - len(study.ended()) - sum(1 for process in processes if process.trial)

    try:
        while True:
            for process in processes:
                while process.ready and not process.trial and left() > 0:
                    process.start(study)
            starting = sum(1 for process in processes if not process.ready)
            for _ in range(min(left() - starting, tune.processes - len(processes))):
                processes.append(_Process(job, cores))
                log.info("process %d is reading the images", processes[-1].process.pid)
            if left() <= 0 and not any(process.trial for process in processes):
                break
            for connection in wait([process.connection for process in processes]):
                [process] = [each for each in processes if each.connection is connection]
                if not process.receive(study):
                    processes.remove(process)
    finally:
        for process in processes:
            process.end()
    trials = study.ended()
    if all(trial.state == "failed" for trial in trials):
        raise RuntimeError(f"all {len(trials)} trials failed, the last with: {trials[-1].error}")
    return trials


class Study:
    """Study of a tuning in a file.

    Args:
        settings: The settings to change.
        tune: Settings of the tuning.
        folder: Folder of the file.
    """

    def __init__(self, settings: TrialSettings, tune: TuneSettings, folder: Path) -> None:
        self.settings, self.tune, self.folder = settings, tune, folder
        self.distributions = {
            name: _distribution(dimension, is_whole(name)) for name, dimension in tune.space.dimensions().items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(_repaired(folder / JOURNAL)))),
            study_name=_NAME,
            direction="maximize",
            load_if_exists=True,
            # The median rule compares trials at the same epoch of the same schedule. Successive halving and Hyperband
            # end two of three trials after the first epochs, when a warmup still decides the order.
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=tune.startup_trials,
                # Epochs are numbered from 1, and pruning begins after those of the warmup.
                n_warmup_steps=math.ceil(shorten(settings.training, tune.epochs).warmup_epochs) + 1,
            ),
        )
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state is TrialState.RUNNING:
                self._repeat(trial)
        current = {name: _current(settings, name) for name in self.distributions}
        dimensions = tune.space.dimensions()
        if not trials and all(_contains(dimensions[name], value) for name, value in current.items()):
            self._study.enqueue_trial(current)

    def ended(self) -> list[Trial]:
        """Return the trials that have ended, in the order of their numbers, without interrupted attempts."""
        trials = [
            trial
            for trial in self._study.get_trials(False, tuple(_STATES.values()))
            if trial.state is not TrialState.FAIL or _ERROR in trial.user_attrs  # an interrupted attempt has no error
        ]
        return sorted(map(_summarise, trials), key=lambda trial: trial.number)

    def ask(self) -> optuna.Trial:
        """Return a new trial, or one to repeat."""
        numbers = [trial.user_attrs.get(_NUMBER, 0) for trial in self._study.get_trials(deepcopy=False)]
        number = max(numbers, default=0) + 1
        # The random numbers of a trial depend on its own number, so a resumed study draws those of an unbroken one.
        seed = np.random.SeedSequence([self.settings.training.seed, number]).generate_state(1)[0]
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.tune.startup_trials, multivariate=True, constant_liar=True, seed=int(seed)
        )
        trial = self._study.ask(self.distributions)
        if _NUMBER not in trial.user_attrs:
            trial.set_user_attr(_NUMBER, number)
        return trial

    def trial_settings(self, trial: optuna.Trial) -> TrialSettings:
        """Return the settings of a trial. Raises ValueError if its values do not fit each other."""
        changed = apply(trial.params, self.settings)
        training = changed.training.model_copy(update={"use_val": False})  # trials are compared on val
        return changed._replace(training=shorten(training, self.tune.epochs))

    def trial_folder(self, trial: optuna.Trial | FrozenTrial) -> Path:
        """Return the folder of a trial's checkpoints, the same for all attempts."""
        return self.folder / "trials" / str(trial.user_attrs[_NUMBER])

    def report(self, trial: optuna.Trial, rows: list[Row]) -> bool:
        """Record new epochs of a trial, and return whether to prune it."""
        for row in rows:
            trial.report(row["val_accuracy"], int(row["epoch"]))
        return bool(trial.should_prune())

    def tell(self, trial: optuna.Trial, ending: Ending, rows: list[Row]) -> Trial:
        """Record the end of a trial, and return the trial.

        Args:
            trial: The trial.
            ending: Its end.
            rows: Figures of all its epochs.
        """
        trial.set_user_attr(_ROWS, [[int(row["epoch"]), row["val_accuracy"], row["seconds"]] for row in rows])
        if ending.error:
            trial.set_user_attr(_ERROR, ending.error)
        value = max(row["val_accuracy"] for row in rows) if ending.state == "complete" else None
        told = self._study.tell(trial, value, _STATES[ending.state])
        shutil.rmtree(self.trial_folder(trial), ignore_errors=True)
        return _summarise(told)

    def died(self, trial: optuna.Trial, code: int, rows: list[Row]) -> None:
        """Record that the process of a trial died: the trial is repeated once, then it counts as failed.

        Args:
            trial: The trial.
            code: Exit code of the process.
            rows: Figures of the epochs before.
        """
        attempt = trial.user_attrs.get(_ATTEMPT, 1)
        if attempt < _ATTEMPTS:
            log.warning("the process of trial %d ended with code %d: trying again", trial.user_attrs[_NUMBER], code)
            self._repeat(self._study.get_trials(deepcopy=False)[trial.number], attempt + 1)
        else:
            reason = f"its process ended with code {code} in {_ATTEMPTS} attempts, perhaps for lack of memory"
            log.info("%s", self.tell(trial, Ending("failed", reason), rows))

    def _repeat(self, trial: FrozenTrial, attempt: int = 1) -> None:
        """Mark an interrupted trial as failed, and put its values and number in the queue."""
        # A kill in the middle of this method leaves an entry in the queue, which is not added a second time.
        number = trial.user_attrs.get(_NUMBER)  # missing after a kill before the trial began
        waiting = self._study.get_trials(False, (TrialState.WAITING,))
        queued = any(one.user_attrs.get(_NUMBER) == number for one in waiting)
        if number is not None and not queued and _ERROR not in trial.user_attrs:
            self._study.enqueue_trial(trial.params, {_NUMBER: number, _ATTEMPT: attempt})
        self._study.tell(trial.number, state=TrialState.FAIL)


class _Process:
    """Process that trains trials, see `trainer.trial_worker`.

    Args:
        job: The first message.
        cores: Number of CPU cores to use. None: all.
    """

    def __init__(self, job: Job, cores: int | None) -> None:
        environment = dict(os.environ)
        if cores:
            threads = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
            environment |= dict.fromkeys(threads, str(cores))
        self.connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", "trainer.trial_worker", str(theirs.fileno())]
            root = Path(__file__).parents[1]  # folder from which `trainer` is imported
            # In a process group of its own, so that Ctrl-C reaches only this process.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd=root,
                env=environment,
                process_group=0,
            )
        self.connection.send(job)
        self.ready = False
        self.trial: optuna.Trial | None = None
        self._trials = 0
        self._rows: list[Row] = []
        self._line_at = 0.0

    def start(self, study: Study) -> None:
        """Start the next trial. A trial whose values do not fit each other fails at once."""
        trial = study.ask()
        try:
            settings = study.trial_settings(trial)
        except ValueError as error:
            log.info("%s", study.tell(trial, Ending("failed", str(error)), []))
            return
        self.trial, self._rows, self._line_at = trial, [], time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # `receive` notices that the process has died
            self.connection.send(Task(settings, study.trial_folder(trial)))

    def receive(self, study: Study) -> bool:
        """Handle one message. Return False if the process has ended: it died, or has trained enough trials."""
        try:
            self._handle(self.connection.recv(), study)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self.end()
            code = self.process.returncode
            if self.ready and not self.trial:
                return False
            if not self.trial:
                raise RuntimeError(
                    f"a process for trials ended with code {code} while it read the images: the log of this step says "
                    "why"
                ) from None
            study.died(self.trial, code, self._rows)
            return False
        if self._trials == _MOST_TRIALS and not self.trial:
            self.end()
            return False
        return True

    def _handle(self, message: Progress | Ending | None, study: Study) -> None:
        if message is None:
            self.ready = True
            return
        assert self.trial
        if isinstance(message, Ending):
            # A trial that was killed after its last epoch completes without training, so its rows come with the end.
            log.info("%s", study.tell(self.trial, message, [*message.rows] or self._rows))
            self.trial = None
            self._trials += 1
            return
        new = message.rows[len(self._rows) :]
        self._rows = message.rows
        if time.monotonic() - self._line_at > _SECONDS_PER_LINE:
            self._line_at = time.monotonic()
            number, row = self.trial.user_attrs[_NUMBER], message.rows[-1]
            log.info("trial %d: epoch %d, val %.4f", number, row["epoch"], row["val_accuracy"])
        self.connection.send(study.report(self.trial, new))

    def end(self) -> None:
        """End the process, which is killed in the middle of a trial."""
        self.connection.close()
        if self.trial:
            self.process.kill()
        try:
            self.process.communicate(timeout=_ENDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def study_name(parts: Mapping[str, str]) -> str:
    """Return the name of a study's folder, a digest of everything that affects its trials."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:16]


def remove_checkpoints_of_others(folder: Path) -> None:
    """Remove the checkpoints of the other studies beside a folder, whose trials will not continue. Studies stay."""
    for other in folder.parent.glob("*/trials"):
        if other.parent != folder:
            shutil.rmtree(other, ignore_errors=True)


def _repaired(file: Path) -> Path:
    """Remove what a killed process left: the lock of a study's file, and a last line without an end."""
    file.with_name(file.name + ".lock").unlink(missing_ok=True)
    if file.exists() and (content := file.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)
    return file


def _distribution(dimension: Dimension, whole: bool) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    assert dimension.low is not None and dimension.high is not None
    if whole:
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)


def _current(settings: TrialSettings, name: str) -> Any:
    group, _, key = name.partition(".")
    return getattr(getattr(settings, group), key)


def _contains(dimension: Dimension, value: Any) -> bool:
    if dimension.choices or value is None:
        return value in dimension.choices
    assert dimension.low is not None and dimension.high is not None
    on_grid = not dimension.step or math.isclose(
        round((value - dimension.low) / dimension.step) * dimension.step + dimension.low, value
    )
    return on_grid and dimension.low <= value <= dimension.high


def _summarise(trial: FrozenTrial) -> Trial:
    rows = trial.user_attrs.get(_ROWS, [])
    # The first of the epochs with the highest accuracy, as in a training.
    epoch, accuracy, _ = max(rows, key=lambda row: row[1], default=(None, None, 0))
    failed = trial.state is TrialState.FAIL
    return Trial(
        number=trial.user_attrs[_NUMBER],
        state="failed" if failed else "pruned" if trial.state is TrialState.PRUNED else "complete",
        values={name: trial.params[name] for name in sorted(trial.params)},
        accuracy=None if failed else accuracy,
        epoch=None if failed else epoch,
        epochs=rows[-1][0] if rows else 0,
        seconds=sum(row[2] for row in rows),
        error=trial.user_attrs.get(_ERROR, ""),
    )

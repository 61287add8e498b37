"""Trainings with several worker processes: start them, follow the first one's log, and start again if one dies.

The processes run `trainer.worker`. Where they run is up to a `Launcher`: `LocalWorkers` starts them on this machine.
If a worker dies, the others cannot continue, so all are stopped. The next set continues from the last checkpoint.
"""

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, TypeVar

from trainer.worker import WRONG_INPUT, Job

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")

JOB = "job.json"  # file of the job, in the folder that also holds the workers' logs
RESTARTS = 3

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 2  # wait for the exit codes of others after a failure, to find the worker that caused it
_LAST_LINES = 20  # lines that are shown of the log of a worker that failed
# Line of the trainer in a log, as `trainer.worker` writes it. Libraries write other lines.
_PROGRESS = re.compile(r"\S+ \S+ (INFO|WARNING|ERROR) trainer\.[\w.]+: (.*)")


class Launcher(ABC):
    """Starts and stops the workers of one training."""

    @abstractmethod
    def addresses(self, count: int) -> list[str]:
        """Return an address, HOST:PORT, for each worker of the next set."""

    @abstractmethod
    def start(self, folder: Path, count: int) -> None:
        """Start a set of workers.

        Args:
            folder: Folder of the job. Each worker appends its output to `log_file(folder, index)`.
            count: Number of workers.
        """

    @abstractmethod
    def ended(self) -> dict[int, int]:
        """Return the exit codes of the workers that have ended, by index; -N for one that signal N killed."""

    @abstractmethod
    def stop(self) -> None:
        """Stop all workers, and wait until they have ended. Do nothing if none was started."""


class LocalWorkers(Launcher):
    """Workers on this machine, each with an equal share of its cores and GPUs.

    They end when this process ends, even if it is killed.
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def addresses(self, count: int) -> list[str]:
        """Return addresses with free ports."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for probe in sockets:
                probe.bind(("localhost", 0))
            return [f"localhost:{probe.getsockname()[1]}" for probe in sockets]

    def start(self, folder: Path, count: int) -> None:
        """Start the processes, as in `Launcher`.

        Raises:
            ValueError: If there are GPUs, but fewer than `count`.
        """
        root = Path(__file__).parents[2]  # the folder from which `trainer` is imported
        inherited = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), inherited.get("PYTHONPATH")]))
        cores, gpus = sorted(os.sched_getaffinity(0)), _gpus()
        if 0 < len(gpus) < count:
            raise ValueError(
                f"training.workers {count} is more than the {len(gpus)} GPUs of this machine: lower it to at most "
                f"{len(gpus)}, or set CUDA_VISIBLE_DEVICES=-1 to train on the CPU"
            )
        for index in range(count):
            own = {"CUDA_VISIBLE_DEVICES": ",".join(_share(gpus, index, count))} if gpus else {}
            # -P: a folder `trainer` in the current folder is not imported.
            command = [sys.executable, "-P", "-m", "trainer.worker", str(folder / JOB)]
            with log_file(folder, index).open("ab") as output:
                process = subprocess.Popen(
                    [*command, f"--index={index}", "--end-with-stdin"],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env=inherited | own,
                    process_group=0,  # Ctrl-C reaches only the parent
                )
            self._processes.append(process)
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.sched_setaffinity(process.pid, _share(cores, index, count))

    def ended(self) -> dict[int, int]:
        """Return the exit codes, as in `Launcher`."""
        codes = {index: process.poll() for index, process in enumerate(self._processes)}
        return {index: code for index, code in codes.items() if code is not None}

    def stop(self) -> None:
        """Kill the processes. All files of a training are written completely or not at all."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()  # closes its standard input, and waits
        self._processes.clear()


launcher: ContextVar[Callable[[], Launcher]] = ContextVar("launcher", default=LocalWorkers)
"""Function that creates the launcher of a training. A step on a cluster sets its own."""


def log_file(folder: Path, index: int) -> Path:
    """Return the path of a worker's log.

    Args:
        folder: Folder of the job.
        index: Index of the worker.
    """
    return folder / f"worker-{index}.log"


def train(make_job: Callable[[list[str]], Job], count: int, folder: Path, launcher: Launcher) -> None:
    """Train with several workers. The lines of the first one's log are logged here, too.

    If a worker dies, all of them start again, at most `RESTARTS` times.

    Args:
        make_job: Function that makes the job from the addresses of the workers.
        count: Number of workers.
        folder: Folder for the file of the job and the logs, which all workers can reach.
        launcher: Starts and stops the workers.

    Raises:
        ValueError: If the settings or the data are wrong, or a loss is not finite.
        RuntimeError: If a worker dies after `RESTARTS` restarts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        log_file(folder, index).touch()
    log.info("starting %d workers; their logs are in %s", count, folder)
    for restart in range(RESTARTS + 1):
        (folder / JOB).write_text(make_job(launcher.addresses(count)).model_dump_json(indent=2), "utf-8")
        starts = [log_file(folder, index).stat().st_size for index in range(count)]
        try:
            launcher.start(folder, count)
            with log_file(folder, 0).open("rb") as output:
                output.seek(starts[0])
                failure = _follow(launcher, count, output)
        finally:
            launcher.stop()
        if failure is None:
            return
        index, code = failure
        lines = _last_lines(log_file(folder, index), starts[index])
        for line in lines:
            log.error("worker %d | %s", index, line)
        if code == WRONG_INPUT:
            reason = lines[-1] if lines else f"it logged nothing to {log_file(folder, index)}"
            raise ValueError(f"worker {index} of {count} failed: {reason}")
        end = f"worker {index} of {count} {_describe(code)}"
        if restart < RESTARTS:
            log.warning("%s; all workers start again and continue from the last checkpoint", end)
    raise RuntimeError(
        f"{end}, after {RESTARTS} restarts: find the cause in {log_file(folder, index)}, then start the run again; the "
        "training continues from its last checkpoint"
    )


def _follow(launcher: Launcher, count: int, output: BinaryIO) -> tuple[int, int] | None:
    """Log the progress until all workers have ended. Returns index and exit code of the worker that failed, if any."""
    unfinished = b""
    while True:
        ended = launcher.ended()
        *lines, unfinished = (unfinished + output.read()).split(b"\n")
        for line in lines:
            if progress := _PROGRESS.fullmatch(line.decode("utf-8", "backslashreplace")):
                log.log(logging.getLevelNamesMapping()[progress[1]], "%s", progress[2])
        if any(ended.values()):
            break
        if len(ended) == count:
            return None
        time.sleep(_POLL_SECONDS)
    # When a worker fails, those connected to it fail as well. The cause is one that rejected its input or was killed.
    deadline = time.monotonic() + _GRACE_SECONDS
    while len(ended) < count and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        ended = ended | launcher.ended()
    failed = [(index, code) for index, code in ended.items() if code]
    return min(failed, key=lambda failure: (failure[1] != WRONG_INPUT, failure[1] != -signal.SIGKILL))


def _share(items: Sequence[_Item], index: int, count: int) -> Sequence[_Item]:
    """Return an equal share of some items, at least one of them."""
    size = max(len(items) // count, 1)
    start = index * size % len(items)
    return items[start : start + size]


def _gpus() -> list[str]:
    """Return the ids of the GPUs that TensorFlow sees, as CUDA_VISIBLE_DEVICES names them."""
    import tensorflow as tf

    count = len(tf.config.list_physical_devices("GPU"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def _last_lines(path: Path, start: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(start)
        return [line.decode("utf-8", "backslashreplace").rstrip() for line in deque(file, _LAST_LINES)]


def _describe(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

"""Decoding and measuring of the images of logs as tasks of workers, on machines that have the logs at the same paths.

Each part of a log file is a task. Its worker writes a table with a small row for each image, and this process reads the
logs as it does without an engine, but takes the rows from the tables. It measures an image itself that no table has,
for example because its record was appended afterwards. So the results are equal.
"""

import functools
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.feather

from components.data.ingest.engine_work import RunTasks
from components.data.worker_files import appearing
from components.errors import EngineError
from pipeline.metadata.garbage import MONITOR_SCRATCH
from pipeline.monitoring.log_files import LogPart, Problems, read_part
from pipeline.monitoring.measured import batches, image_digest, measure_images_of
from pipeline.monitoring.serving_log import Answer, parse
from trainer.framing import Framing

_TABLES = 2  # that are in memory: neighbours, because a batch may have answers of both


class _Task(NamedTuple):
    """Task for a part of a log file."""

    number: int
    part: LogPart


class _Table(NamedTuple):
    """Rows of a part, and their places by the digest of the image."""

    rows: pa.Table
    places: dict[bytes, int]


class MeasuredParts:
    """Tables of the images of logs, see `pipeline.monitoring.measured.MeasureImages`.

    Args:
        tasks: the tasks that were done.
        framing: choices by which their images became the model's input.
        scratch: folder of their tables.
    """

    def __init__(self, tasks: Sequence[_Task], framing: Framing, scratch: Path) -> None:
        self._framing = framing
        self._tasks: dict[str, list[_Task]] = {}
        for task in tasks:
            self._tasks.setdefault(task.part.file, []).append(task)
        self._load = functools.lru_cache(_TABLES)(functools.partial(_load, scratch))

    def __call__(self, answers: Sequence[Answer], framing: Framing) -> pa.Table:
        """Return the rows of answers with images."""
        rows = [self._find(answer) if framing == self._framing else None for answer in answers]
        tables = []
        for number, group in groupby(zip(rows, answers, strict=True), key=lambda pair: pair[0] and pair[0][0]):
            if number is None:
                tables.append(measure_images_of([answer for _, answer in group], framing))
            else:
                tables.append(self._load(number).rows.take([row[1] for row, _ in group if row]))
        return pa.concat_tables(tables)

    def _find(self, answer: Answer) -> tuple[int, int] | None:
        """Return the number of the table that has an answer's image, and the place of its row; None if none has."""
        tasks = self._tasks.get(str(answer.file.resolve()), []) if answer.file else []
        after = bisect_right(tasks, answer.offset, key=lambda task: task.part.start)
        if not after:
            return None
        number = tasks[after - 1].number
        # Another file may have got the name of the log since, so the digest decides.
        place = self._load(number).places.get(image_digest(answer))
        return None if place is None else (number, place)


@contextmanager
def measured_parts(
    parts: Sequence[LogPart], framing: Framing, since: float | None, folder: Path, run_tasks: RunTasks
) -> Iterator[MeasuredParts]:
    """Let workers measure the images in parts of logs, and yield their tables.

    Args:
        parts: the parts.
        framing: choices by which an image becomes the model's input.
        since: time from which on answers are measured, in seconds since 1970; None for all.
        folder: absolute path of a folder that this process and the workers have in common.
        run_tasks: function that runs tasks on workers.

    Raises:
        EngineError: if the engine failed in all attempts, or a worker cannot read a log.
    """
    scratch = folder / f"{MONITOR_SCRATCH}{uuid4().hex}"  # if this process is killed, `vitpipe gc` removes it
    scratch.mkdir()
    try:
        tasks = [_Task(number, part) for number, part in enumerate(parts)]
        run_tasks("images measured", tasks, functools.partial(_measure, framing, since, scratch))
        for task in tasks:
            if not (scratch / str(task.number)).exists() and Path(task.part.file).exists():
                raise EngineError(_unusable(task.part.file, "No such file or directory"))
        yield MeasuredParts(tasks, framing, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measure(framing: Framing, since: float | None, scratch: Path, task: _Task) -> None:
    """Measure the images in a part of a log. The result is their table."""
    result = scratch / str(task.number)
    if result.exists():  # in an earlier attempt
        return
    try:
        problems = Problems()  # the process that reads the log counts them
        records = read_part(task.part, problems)
        answers = (
            answer
            for record in records
            for answer in parse(record, problems)
            if answer.image is not None and (since is None or answer.time is None or answer.time >= since)
        )
        try:
            tables = [measure_images_of(batch, framing) for batch in batches(answers)]
        except FileNotFoundError:
            if not Path(task.part.file).parent.is_dir():
                raise
            return  # the log may have got another name, then the process that reads it measures its images
        with appearing(result, scratch) as partial:
            pyarrow.feather.write_feather(pa.concat_tables(tables) if tables else pa.table({"id": []}), str(partial))
    except OSError as error:
        raise EngineError(_unusable(error.filename or scratch, error.strerror or str(error))) from error


def _unusable(file: str | Path, reason: str) -> str:
    return (
        f"a worker of the engine cannot use {file}: {reason}. Mount the logs and the run folder at the same paths on "
        "all machines of the engine, and allow the user of the workers to read and write there"
    )


def _load(scratch: Path, number: int) -> _Table:
    if not (scratch / str(number)).exists():
        return _Table(pa.table({"id": []}), {})
    rows = pyarrow.feather.read_table(str(scratch / str(number)))
    return _Table(rows, {digest: place for place, digest in enumerate(rows["id"].to_pylist())})

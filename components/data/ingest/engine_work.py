"""Work on all images of a source as tasks of workers, on machines that have its files at the same paths.

Each part of the source is a task that hashes it, and one that checks its images and spools them. Each shard of the span
is a task as well. The workers write what they found into files, so this process holds the rows of the images and no
image. A task may run twice, because the engine or its user repeats it: its files have the same content then, and appear
complete or not at all.
"""

import functools
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from components.data.ingest.decisions import Decisions, add_decided, decide
from components.data.ingest.decisions import check as check_decisions
from components.data.ingest.disk_errors import disk_problem, is_full
from components.data.ingest.intake import Counted, Intake, Tally, accept, take_in
from components.data.ingest.manifest import Recipe, Shard
from components.data.ingest.source import Parts, Progress, Source, check_classes, no_progress, only_classes
from components.data.ingest.spool import ROW, Spool, SpoolFile, SpoolFiles
from components.data.ingest.work import write_shard
from components.data.worker_files import appearing
from components.errors import DataRefused, EngineError, UsageError

_HASHED, _CHECKED, _WRITTEN = "hashed", "checked", "written"  # folders of results, each named after its task
_PROGRESS_SECONDS = 1.0


class RunTasks(Protocol):
    """Function that runs tasks on workers, and returns when all have ended."""

    def __call__(self, name: str, tasks: Sequence[Any], function: Callable[[Any], None]) -> None:
        """Call a function with each task, in any order and on any worker.

        Args:
            name: name of the job.
            tasks: the tasks, which are pickled.
            function: a function of a module, or a partial of one.

        Raises:
            DataRefused: if the function raised it.
            EngineError: if the engine failed, or the function raised it.
        """


class _Part(NamedTuple):
    """Task for a part of the source."""

    number: int
    name: str


class _NewShard(NamedTuple):
    """Task for a shard of the span."""

    number: int
    name: str
    first: int  # its first row in the file of rows
    examples: int


@dataclass(frozen=True)
class _Folders:
    """Folders that the workers and this process have in common."""

    span: Path
    scratch: Path

    def result(self, step: str, number: int) -> Path:
        return self.scratch / step / str(number)

    def images(self, part: int) -> Path:
        return self.scratch / f"images-{part}"

    def all_images(self, sizes: Sequence[int]) -> SpoolFiles:
        return SpoolFiles([self.images(part) for part in range(len(sizes))], sizes)

    def rows(self, part: int) -> Path:
        return self.scratch / f"rows-{part}"

    @property
    def shard_rows(self) -> Path:
        return self.scratch / "shard-rows"

    def appearing(self, path: Path) -> AbstractContextManager[Path]:
        """Yield the path of a new file, which becomes `path` when the block ends without an exception."""
        return appearing(path, self.scratch)


class OnEngine:
    """Work as tasks of workers, see `components.data.ingest.work.Work`.

    Args:
        source: the source.
        recipe: the parameters of the span.
        folder: the folder in which the span is written.
        progress: called with the number of finished tasks.
        run_tasks: function that runs tasks on workers.
        decisions: decisions of a person about images of the source; None if there are none.

    Raises:
        UsageError: if the source cannot be divided into parts.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        folder: Path,
        progress: Progress,
        run_tasks: RunTasks,
        decisions: Decisions | None,
    ) -> None:
        if source.parts is None:
            raise UsageError(
                f"{source.description}: an engine cannot divide this source between its workers: use a folder of "
                "images, a table of paths, or a folder of the files of a data set (an archive: unpack it), or set "
                "beam.runner to local"
            )
        self._source, self._parts, self._recipe = source, source.parts, recipe
        self._progress, self._run_tasks, self._decisions = progress, run_tasks, decisions
        # It is beside the span, so that a worker of a lost attempt cannot add a file to the span. What such a worker
        # leaves there is removed before the next span is written, like every temporary folder.
        self._folders = _Folders(folder.absolute(), folder.absolute().with_name(f"{folder.name}-scratch"))
        self._tasks: list[_Part] = []
        self._images = SpoolFiles([], [])
        self._sizes: list[int] = []  # of the files of images, in bytes
        self._sha256 = ""

    def __enter__(self) -> Self:
        for name in ("", "parts", _HASHED, _CHECKED, _WRITTEN):
            (self._folders.scratch / name).mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self._images.__exit__()
        shutil.rmtree(self._folders.scratch, ignore_errors=True)

    def sha256(self) -> str:
        """Divide and hash the source at the first call, and return its digest."""
        if self._sha256:
            return self._sha256
        for number, name in enumerate(self._parts.divide(self._folders.scratch / "parts")):
            self._tasks.append(_Part(number, name))
            self._progress("parts listed", number + 1, None)
        self._run("parts hashed", _HASHED, self._tasks, functools.partial(_hash, self._parts, self._folders))
        total = hashlib.sha256()
        for number in range(len(self._tasks)):
            total.update(self._folders.result(_HASHED, number).read_bytes())
        self._sha256 = total.hexdigest()
        return self._sha256

    def take_in(self, earlier_classes: Sequence[str]) -> tuple[Intake, Spool]:
        """Check the images of all parts and spool them, in a file for each part."""
        classes = self._recipe.classes
        check = functools.partial(_check, self._parts, self._decisions, classes, self._folders)
        self._run("parts checked", _CHECKED, self._tasks, check)
        tally, seen, decided, original = Tally(), set[str](), set[str](), set[str]()
        labels, counts = [], []
        for number in range(len(self._tasks)):
            found = json.loads(self._folders.result(_CHECKED, number).read_text())
            labels.append(np.array(tally.add(_to_tally(found["tally"])), "<u4"))
            counts.append(found["images"])
            self._sizes.append(found["bytes"])
            seen.update(found["classes"])
            if self._decisions is not None:
                for id in found["decided"]:
                    add_decided(self._decisions, decided, id)
            original.update(found["original_classes"])
        if self._decisions is not None:
            check_decisions(self._source, self._decisions, decided, original)
        if classes is not None:
            check_classes(self._source.description, classes, seen)
        self._images = self._folders.all_images(self._sizes)
        rows = np.empty(sum(counts), ROW)
        first = start = 0
        for number, count in enumerate(counts):
            part = rows[first : first + count]
            part[:] = np.fromfile(self._folders.rows(number), ROW)
            part["label"] = labels[number][part["label"]]
            part["offset"] += start
            first, start = first + count, start + self._sizes[number]
        return accept(self._source, tally, self._images, rows, self._recipe, earlier_classes)

    def write_shards(self, spool: Spool, shards: Mapping[str, np.ndarray]) -> dict[str, Shard]:
        """Write shards."""
        tasks, first = [], 0
        with self._folders.shard_rows.open("wb") as file:
            for number, (name, rows) in enumerate(shards.items()):
                file.write(rows.tobytes())
                tasks.append(_NewShard(number, name, first, len(rows)))
                first += len(rows)
        self._run("shards written", _WRITTEN, tasks, functools.partial(_write, self._sizes, self._folders))
        return {
            task.name: Shard.model_validate_json(self._folders.result(_WRITTEN, task.number).read_bytes())
            for task in tasks
        }

    def _run(self, what: str, step: str, tasks: Sequence[Any], function: Callable[[Any], None]) -> None:
        """Run tasks, and report the number of their results as progress."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_PROGRESS_SECONDS):
                self._progress(what, sum(1 for _ in (self._folders.scratch / step).iterdir()), len(tasks))

        watcher = threading.Thread(target=watch)
        self._progress(what, 0, len(tasks))
        watcher.start()
        try:
            self._run_tasks(what, tasks, function)
        finally:
            ended.set()
            watcher.join()
        self._progress(what, len(tasks), len(tasks))


def _hash(parts: Parts, folders: _Folders, task: _Part) -> None:
    """Hash the files of a part. The result is their lines of `sha256sum`."""
    result = folders.result(_HASHED, task.number)
    if result.exists():  # in an earlier attempt
        return
    with _disk_errors(folders), folders.appearing(result) as partial:
        partial.write_bytes(b"".join(parts.digests(task.name)))


def _check(
    parts: Parts, decisions: Decisions | None, classes: Sequence[str] | None, folders: _Folders, task: _Part
) -> None:
    """Check the images of a part and spool them. The result, which appears last, says what was found."""
    result = folders.result(_CHECKED, task.number)
    if result.exists():
        return
    seen, decided, original = set[str](), set[str](), set[str]()
    with _disk_errors(folders):
        with folders.appearing(folders.images(task.number)) as partial:
            with SpoolFile(partial) as file:
                records = parts.records(task.name)
                if decisions is not None:
                    records = decide(records, decisions, decided, original)
                if classes is not None:
                    records = only_classes(records, classes, seen)
                tally = take_in(records, file, no_progress, processes=1)
                rows = file.finish()
            size = partial.stat().st_size
        with folders.appearing(folders.rows(task.number)) as partial:
            partial.write_bytes(rows.tobytes())
        found = {
            "tally": asdict(tally),
            "images": len(rows),
            "bytes": size,
            "classes": sorted(seen),
            "decided": sorted(decided),
            "original_classes": sorted(original),
        }
        with folders.appearing(result) as partial:
            partial.write_text(json.dumps(found))


def _write(sizes: Sequence[int], folders: _Folders, task: _NewShard) -> None:
    """Write a shard. The result is its entry in the manifest."""
    result = folders.result(_WRITTEN, task.number)
    if result.exists():
        return
    with _disk_errors(folders), folders.all_images(sizes) as images:
        rows = np.fromfile(folders.shard_rows, ROW, task.examples, offset=task.first * ROW.itemsize)
        with folders.appearing(folders.span / task.name) as partial:
            shard = write_shard(partial, images, rows)
        with folders.appearing(result) as partial:
            partial.write_text(shard.model_dump_json())


def _to_tally(found: dict[str, Any]) -> Tally:
    """Rebuild a tally from JSON."""
    shapes = [(height, width, channels) for height, width, channels in found["shapes"]]
    groups = {
        name: {key: Counted(**group) for key, group in found[name].items()}
        for name in ("rejected", "passed_over", "remarked")
    }
    return Tally(found["records"], found["numbers"], shapes, **groups, dropped=found["dropped"])


@contextmanager
def _disk_errors(folders: _Folders) -> Iterator[None]:
    """Raise errors of a worker's disk as errors that a user can act on."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DataRefused(disk_problem(error, folders.scratch)) from error
        raise EngineError(
            f"a worker of the engine cannot use {error.filename}: {error.strerror}. Mount the source and the data "
            "folder at the same paths on all machines of the engine, and allow the user of the workers to read the "
            "source and to write to the data folder"
        ) from error

"""Lookup of runs in ML Metadata: one run by its id, or a listing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from components.errors import NotFound, StoreError
from components.suggestions import did_you_mean
from pipeline.metadata import stores
from pipeline.metadata.reader import Reader
from pipeline.metadata.records import Run
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.summary import Summary, summarise

_PAGE = 200  # runs that are read at a time


class Order(StrEnum):
    """Order of a listing: the newest first, the most accurate, or the longest."""

    WHEN = "when"
    ACCURACY = "accuracy"
    DURATION = "duration"


@dataclass(frozen=True)
class RunListing:
    """Rows of a listing."""

    runs: list[Summary]
    problems: list[StoreError]  # errors of stores that cannot be read, whose runs are missing


def read_run(name: str = "last", runs: Path = Path("runs")) -> RunResult:
    """Return the outcome of a run.

    Args:
        name: id of the run, or `last` for the newest.
        runs: folder of the run folders.

    Raises:
        NotFound: if no store knows the run; the message names the nearest ids.
        StoreError: if no store can be read.
    """
    _, run = stores.find_run(name, runs)
    return RunResult(run)


def list_runs(
    runs: Path = Path("runs"),
    *,
    pipeline: str | None = None,
    state: RunState | None = None,
    blessed: bool | None = None,
    since: datetime | None = None,
    sort: Order = Order.WHEN,
    limit: int = 20,
) -> RunListing:
    """Return the runs of all pipelines below `runs`, the newest first.

    Args:
        runs: folder of the run folders.
        pipeline: runs of this pipeline only.
        state: runs in this state only.
        blessed: runs whose model was, or was not, blessed.
        since: runs that began at this time or later.
        sort: order of the rows.
        limit: number of runs; 0 for all.

    Raises:
        NotFound: if there is no store of runs, or none that knows the pipeline.
        StoreError: if no store can be read.
    """
    check_pipeline(runs, pipeline)
    since_ms = int(since.timestamp() * 1000) if since else 0

    def matching(store: Reader) -> list[Summary]:
        summaries: list[Summary] = []
        for run in newest(store, pipeline, since_ms, limit):
            summary = summarise(RunResult(run))
            if state in (None, summary.state) and blessed in (None, summary.blessed):
                summaries.append(summary)
                if sort is Order.WHEN and len(summaries) == limit:
                    break
        return summaries

    answers, problems = stores.ask_all(runs, matching)
    summaries = [summary for _, of_store in answers for summary in of_store]
    match sort:
        case Order.WHEN:
            summaries.sort(key=lambda summary: summary.started, reverse=True)
        case Order.ACCURACY:
            summaries.sort(key=lambda summary: summary.accuracy or 0.0, reverse=True)
        case Order.DURATION:
            summaries.sort(key=lambda summary: summary.seconds, reverse=True)
    return RunListing(summaries[: limit or None], problems)


def check_pipeline(runs: Path, pipeline: str | None = None) -> None:
    """Check that there is a store of runs, and that one of the stores knows a pipeline.

    Args:
        runs: folder of the run folders.
        pipeline: name of the pipeline; None for any.

    Raises:
        NotFound: if there is no store, or no store knows the pipeline.
        StoreError: if no store can be read.
    """
    if not stores.stores(runs):
        raise NotFound(f"no run below {runs}: start one with `vitpipe run`, or name another folder with --runs")
    if pipeline is None:
        return
    answers, problems = stores.ask_all(runs, lambda store: store.pipelines())
    known = sorted({name for _, names in answers for name in names})
    if pipeline not in known and problems:
        raise problems[0]  # the store that cannot be read may know it
    if pipeline not in known:
        names = f"name one of {', '.join(known)}" if known else "start a run with `vitpipe run`"
        raise NotFound(f"--pipeline {pipeline} is not a pipeline below {runs}: {did_you_mean(pipeline, known)}{names}")


def newest(store: Reader, pipeline: str | None, since_ms: int = 0, first_page: int = 0) -> Iterator[Run]:
    """Yield the runs of a store by pages, the newest first.

    Args:
        store: the store.
        pipeline: runs of this pipeline only; None for all.
        since_ms: runs that began at this time or later, in milliseconds since 1970.
        first_page: number of runs to read at first; 0 for a whole page.
    """
    offset, size = 0, first_page or _PAGE
    while page := store.runs(pipeline, since_ms, size, offset):
        yield from page
        offset, size = offset + size, _PAGE

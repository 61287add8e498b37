"""Lists that are split into pages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from components.errors import StoreError
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult
from pipeline.result.summary import Summary, summarise

SIZE = 20  # rows of a page
Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows of one page of a list. `number` counts from 1; `more` is True if another page follows.

    `problems` has a message for each store that could not be read.
    """

    rows: Sequence[Row]
    number: int
    more: bool
    problems: Sequence[str] = ()


@dataclass(frozen=True)
class RunRow:
    """A run and the name of its store."""

    store: str
    summary: Summary


def page_of(rows: Sequence[Row], number: int, skipped: int = 0, problems: Sequence[str] = ()) -> Page[Row]:
    """Return a page of a list.

    Args:
        rows: Rows of the list without its first `skipped` rows. They include the row after the page, if there is one.
        number: Number of the page, from 1.
        skipped: Number of rows that `rows` lacks at its start.
        problems: See `Page`.
    """
    start = (number - 1) * SIZE - skipped
    return Page(rows[start : start + SIZE], number, len(rows) > start + SIZE, problems)


def runs_page(
    stores: Mapping[str, Address], number: int, state: str = "", wanted: Callable[[Summary], bool] | None = None
) -> Page[RunRow]:
    """Return a page of the runs of all stores, the newest first.

    Args:
        stores: Address of each store, by name.
        number: Number of the page, from 1.
        state: State that the runs must have; empty for any.
        wanted: Condition on the runs; None for all.

    Raises:
        StoreError: If no store can be read.
    """
    # A database cannot filter by state, so all rows before the page are read. Only an unfiltered list of one store
    # can skip them.
    skipped = (number - 1) * SIZE if not state and wanted is None and len(stores) == 1 else 0
    rows: list[RunRow] = []
    problems: list[StoreError] = []
    for name, address in stores.items():
        try:
            found = _summaries(address, state, wanted, number * SIZE + 1 - skipped, skipped)
        except StoreError as error:
            problems.append(error)
        else:
            rows += [RunRow(name, summary) for summary in found]
    if problems and len(problems) == len(stores):
        raise problems[0]
    rows.sort(key=lambda row: row.summary.started, reverse=True)
    return page_of(rows, number, skipped, [str(problem) for problem in problems])


def _summaries(
    address: Address, state: str, wanted: Callable[[Summary], bool] | None, count: int, offset: int
) -> list[Summary]:
    """Return up to `count` of the newest runs that have the state and are wanted."""
    batch = max(count, 100) if state or wanted else count
    rows: list[Summary] = []
    with reader(address) as store:
        for start in itertools.count(offset, batch):
            runs = store.runs(limit=batch, offset=start, details=not state)
            last = len(runs) < batch
            if state:  # usually few runs match, so only those are read in full
                runs = store.runs_named([run.name for run in runs if RunResult(run).state == state])
            summaries = [summarise(RunResult(run)) for run in runs]
            rows += [summary for summary in summaries if wanted is None or wanted(summary)]
            if last or len(rows) >= count:
                return rows[:count]
    raise AssertionError("itertools.count never ends")

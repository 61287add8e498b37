"""Pages of a list: the rows of a page, and whether more follow."""

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
    """The rows of page `number`, from 1."""

    rows: Sequence[Row]
    number: int
    more: bool
    problems: Sequence[str] = ()  # of stores that could not be read


@dataclass(frozen=True)
class RunRow:
    """A run, and the store it is in."""

    store: str
    summary: Summary


def page_of(rows: Sequence[Row], number: int, skipped: int = 0, problems: Sequence[str] = ()) -> Page[Row]:
    """A page of rows that begin after the first `skipped`, and go on at least one beyond it, if there are more."""
    start = (number - 1) * SIZE - skipped
    return Page(rows[start : start + SIZE], number, len(rows) > start + SIZE, problems)


def runs_page(
    stores: Mapping[str, Address], number: int, state: str = "", wanted: Callable[[Summary], bool] | None = None
) -> Page[RunRow]:
    """The newest runs of all stores first. Raises StoreError where none can be read."""
    # What a state is, a database cannot say: rows before the page are read, but for a plain list of one store.
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
    """The newest `count` that are in the state and wanted, or fewer."""
    batch = max(count, 100) if state or wanted else count
    rows: list[Summary] = []
    with reader(address) as store:
        for start in itertools.count(offset, batch):
            runs = store.runs(limit=batch, offset=start, details=not state)
            last = len(runs) < batch
            if state:  # few are like that, and the state of the others is all that was to be known
                runs = store.runs_named([run.name for run in runs if RunResult(run).state == state])
            summaries = [summarise(RunResult(run)) for run in runs]
            rows += [summary for summary in summaries if wanted is None or wanted(summary)]
            if last or len(rows) >= count:
                return rows[:count]
    raise AssertionError("counts without end")

"""One row of a listing of runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.metadata.properties import Kind, Unreadable
from pipeline.result.run_result import RunResult, RunState, as_text


@dataclass(frozen=True)
class Summary:
    """One run in a line. `accuracy` is that on the gate's test set; `pushed` the version, if the run pushed one.

    `unreadable` has a reason for each property that could not be read; the fields made from it are None or empty.
    """

    run: str
    pipeline: str
    state: RunState
    started: datetime
    seconds: float
    trigger: str | None
    span: int | None
    code_version: str | None
    accuracy: float | None
    blessed: bool | None
    pushed: str | None
    unreadable: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return a tree for `json.dumps`."""
        return {**self.__dict__, "started": self.started.isoformat(timespec="milliseconds")}


def summarise(result: RunResult) -> Summary:
    """Return the row of a run. Never raises Unreadable."""
    problems: list[str] = []

    def readable(value: Callable[[], Kind], otherwise: Kind) -> Kind:
        try:
            return value()
        except Unreadable as error:
            if str(error) not in problems:
                problems.append(str(error))
            return otherwise

    accuracy = readable(lambda: result.accuracy, None)
    return Summary(
        run=result.name,
        pipeline=result.pipeline,
        state=readable(result.read_state, RunState.UNREADABLE),
        started=result.started,
        seconds=result.seconds,
        trigger=as_text(result.record.facts.get("trigger")),
        span=readable(lambda: result.span, None),
        code_version=as_text(result.record.facts.get("code_version")),
        accuracy=accuracy if accuracy is None or math.isfinite(accuracy) else None,  # JSON has no NaN
        blessed=readable(lambda: result.blessed, None),
        pushed=result.pushed,
        unreadable=tuple(problems),
    )

"""One row of a listing of runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.metadata.properties import Kind, UnreadableError
from pipeline.result.run_result import RunResult, RunState, as_text


@dataclass(frozen=True)
class Summary:
    """One row of a listing of runs. A field whose property cannot be read is None."""

    run: str
    pipeline: str
    state: RunState
    started: datetime
    seconds: float
    trigger: str | None
    span: int | None
    code_version: str | None
    accuracy: float | None  # on the gate's test set
    blessed: bool | None
    pushed: str | None  # the pushed version
    unreadable: tuple[str, ...] = ()  # a reason for each property that cannot be read

    def as_json(self) -> dict[str, Any]:
        """Return the row as values for `json.dumps`."""
        return {**self.__dict__, "started": self.started.isoformat(timespec="milliseconds")}


def summarise(result: RunResult) -> Summary:
    """Return the row of a run. Never raises UnreadableError."""
    problems: list[str] = []

    def read_or_default(value: Callable[[], Kind], default: Kind) -> Kind:
        try:
            return value()
        except UnreadableError as error:
            if str(error) not in problems:
                problems.append(str(error))
            return default

    accuracy = read_or_default(lambda: result.accuracy, None)
    return Summary(
        run=result.name,
        pipeline=result.pipeline,
        state=read_or_default(result.read_state, RunState.UNREADABLE),
        started=result.started,
        seconds=result.seconds,
        trigger=as_text(result.record.facts.get("trigger")),
        span=read_or_default(lambda: result.span, None),
        code_version=as_text(result.record.facts.get("code_version")),
        accuracy=accuracy if accuracy is None or math.isfinite(accuracy) else None,  # JSON has no NaN
        blessed=read_or_default(lambda: result.blessed, None),
        pushed=result.pushed,
        unreadable=tuple(problems),
    )

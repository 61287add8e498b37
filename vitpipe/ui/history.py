"""Changes from run to run, as charts for plotly.js."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.summary import Summary, summarise

MOST = 200  # runs, the newest
_BLESSED, _STOPPED, _WARNED = "#54a24b", "#e45756", "#f58518"
_OF_STATE = {
    RunState.DONE: _BLESSED,
    RunState.FAILED: _STOPPED,
    RunState.DIED: "#9d755d",
    RunState.NOT_BLESSED: _WARNED,
    RunState.REFUSED: "#b279a2",
    RunState.NOT_SERVABLE: "#ff9da6",
    RunState.RUNNING: "#4c78a8",
    RunState.UNREADABLE: "#bab0ac",
}
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2")


@dataclass(frozen=True)
class Moment:
    """A run, and how far its data had moved from the span before, by check."""

    summary: Summary
    drift: dict[str, float]


def moments(address: Address) -> list[Moment]:
    """The newest runs, the oldest of them first."""
    with reader(address) as store:
        return [
            Moment(summarise(result), _drift(result)) for result in map(RunResult, reversed(store.runs(limit=MOST)))
        ]


def figures(moments: Sequence[Moment], href: Callable[[str], str]) -> list[dict[str, Any]]:
    """Data and layout of each chart; a point's `customdata` is the address of its run."""
    weighed = [one for one in moments if one.summary.accuracy is not None]
    accuracy = [
        _trace(name, chosen, [one.summary.accuracy for one in chosen], href, colour, "markers", symbol)
        for name, blessed, colour, symbol in (
            ("blessed", True, _BLESSED, "circle"),
            ("not blessed", False, _WARNED, "x"),
        )
        if (chosen := [one for one in weighed if bool(one.summary.blessed) is blessed])
    ]
    duration = []
    for state in sorted({one.summary.state for one in moments}):
        chosen = [one for one in moments if one.summary.state == state]
        minutes = [round(one.summary.seconds / 60, 3) for one in chosen]
        duration.append(_trace(state, chosen, minutes, href, _OF_STATE[state], "markers"))
    checks = sorted({check for one in moments for check in one.drift})
    drift = []
    for check, colour in zip(checks, _COLOURS * 2, strict=False):
        chosen = [one for one in moments if check in one.drift]
        values = [one.drift[check] for one in chosen]
        drift.append(_trace(check.removeprefix("drift_"), chosen, values, href, colour, "lines+markers"))
    return [
        _figure("Accuracy on the gate's test set", accuracy, ".1%", "normal"),
        _figure("Minutes a run", duration, "", "tozero"),
        _figure("Drift from the span before", drift, "", "tozero"),
    ]


def _trace(
    name: str,
    of: Sequence[Moment],
    values: Sequence[float | None],
    href: Callable[[str], str],
    colour: str,
    mode: str,
    symbol: str = "circle",
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": str(name),
        "marker": {"color": colour, "size": 8, "symbol": symbol},
        "x": [one.summary.started.isoformat(timespec="seconds") for one in of],
        "y": list(values),
        "text": [one.summary.run for one in of],
        "customdata": [href(one.summary.run) for one in of],
        "hovertemplate": "%{text}<br>%{y}",
    }


def _figure(title: str, traces: list[dict[str, Any]], form: str, range_mode: str) -> dict[str, Any]:
    return {"title": title, "data": traces, "layout": {"yaxis": {"tickformat": form, "rangemode": range_mode}}}


def _drift(result: RunResult) -> dict[str, float]:
    return {check: value for check, value in result.data_values.items() if check.startswith("drift_")}

"""Charts of all runs of a store over time, for plotly.js."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.summary import Summary, summarise

MOST_RUNS = 200  # the charts show only the newest runs
_GREEN, _RED, _ORANGE = "#54a24b", "#e45756", "#f58518"
_STATE_COLOURS = {
    RunState.DONE: _GREEN,
    RunState.FAILED: _RED,
    RunState.DIED: "#9d755d",
    RunState.NOT_BLESSED: _ORANGE,
    RunState.REFUSED: "#b279a2",
    RunState.NOT_SERVABLE: "#ff9da6",
    RunState.RUNNING: "#4c78a8",
    RunState.UNREADABLE: "#bab0ac",
}
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2")


@dataclass(frozen=True)
class Moment:
    """A run, with the values of its drift checks, which compare its data with an earlier span."""

    summary: Summary
    drift: dict[str, float]


def moments(address: Address) -> list[Moment]:
    """Return the newest runs of a store, the oldest of them first."""
    with reader(address) as store:
        return [
            Moment(summarise(result), _drift(result))
            for result in map(RunResult, reversed(store.runs(limit=MOST_RUNS)))
        ]


def figures(moments: Sequence[Moment], href: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return data and layout of each chart.

    Args:
        moments: Runs, the oldest first.
        href: Returns the address of a run's page, which becomes the `customdata` of its points.
    """
    measured = [one for one in moments if one.summary.accuracy is not None]
    accuracy = [
        _trace(name, chosen, [one.summary.accuracy for one in chosen], href, colour, "markers", symbol)
        for name, blessed, colour, symbol in (
            ("blessed", True, _GREEN, "circle"),
            ("not blessed", False, _ORANGE, "x"),
        )
        if (chosen := [one for one in measured if bool(one.summary.blessed) is blessed])
    ]
    duration = []
    for state in sorted({one.summary.state for one in moments}):
        chosen = [one for one in moments if one.summary.state == state]
        minutes = [round(one.summary.seconds / 60, 3) for one in chosen]
        duration.append(_trace(state, chosen, minutes, href, _STATE_COLOURS[state], "markers"))
    checks = sorted({check for one in moments for check in one.drift})
    drift = []
    for check, colour in zip(checks, _COLOURS * 2, strict=False):
        chosen = [one for one in moments if check in one.drift]
        values = [one.drift[check] for one in chosen]
        drift.append(_trace(check.removeprefix("drift_"), chosen, values, href, colour, "lines+markers"))
    return [
        _figure("Accuracy on the gate's test set", accuracy, ".1%", "normal", "No model has reached the gate yet."),
        _figure("Duration of a run, in minutes", duration, "", "tozero", "No run has been recorded yet."),
        _figure(
            "Drift from the previous span",
            drift,
            "",
            "tozero",
            "No run has compared two spans yet. The first run on a second span will.",
        ),
    ]


def _trace(
    name: str,
    moments: Sequence[Moment],
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
        "x": [one.summary.started.isoformat(timespec="seconds") for one in moments],
        "y": list(values),
        "text": [one.summary.run for one in moments],
        "customdata": [href(one.summary.run) for one in moments],
        "hovertemplate": "%{text}<br>%{y}",
    }


def _figure(title: str, traces: list[dict[str, Any]], form: str, range_mode: str, empty: str) -> dict[str, Any]:
    """Return a chart, and the sentence to show in its place if it has no points."""
    layout = {"yaxis": {"tickformat": form, "rangemode": range_mode}}
    return {"title": title, "data": traces, "layout": layout, "empty": empty}


def _drift(result: RunResult) -> dict[str, float]:
    return {check: value for check, value in result.data_values.items() if check.startswith("drift_")}

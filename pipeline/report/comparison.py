"""Page that compares two runs side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.model.evaluator.judgement import ModelFigures
from pipeline.console.duration import duration
from pipeline.drawing import charts
from pipeline.drawing.document import document, plain, share
from pipeline.report.model import Report
from pipeline.report.page import overall_figures
from pipeline.result.differences import flat
from pipeline.result.figures import best_epoch


def render(first: Report, second: Report) -> str:
    """Return the page as one HTML file that needs no network.

    Args:
        first: report of the first run.
        second: report of the second run.
    """
    runs = [first, second]
    candidates = [run.judgement.candidate if run.judgement else None for run in runs]
    return document(
        Path(__file__).with_suffix(".html"),
        runs=runs,
        figures=_figures(runs) | overall_figures(candidates),
        settings=differing_values(flat(first.settings), flat(second.settings)),
        facts=differing_values(first.facts, second.facts),
        classes=_classes(candidates),
        charts=_charts(runs),
    )


def differing_values(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the values that differ, as text.

    Args:
        first: values of the first run.
        second: values of the second run.

    Returns:
        Both texts by key. The text is empty for a run that lacks the key.
    """

    def text(values: Mapping[str, Any], key: str) -> str:
        return plain(values[key]) if key in values else ""

    keys = dict.fromkeys([*first, *second])
    return {key: (text(first, key), text(second, key)) for key in keys if first.get(key) != second.get(key)}


def _figures(runs: list[Report]) -> dict[str, list[str]]:
    return {
        "state": [str(run.state) for run in runs],
        "started": [f"{run.started:%Y-%m-%d %H:%M:%S}" for run in runs],
        "took": [duration(run.seconds) for run in runs],
        "span": [str(run.data.span) if run.data else "" for run in runs],
        "epochs": [str(len(run.history)) if run.history else "" for run in runs],
        "best on val": [share(best.val_accuracy if (best := best_epoch(run.history)) else None) for run in runs],
        **{
            name: [next((f"{check.value:.4g}" for check in run.serving if check.name == name), "") for run in runs]
            for name in ("latency in ms", "memory in GiB")
        },
    }


def _classes(candidates: list[ModelFigures | None]) -> list[tuple[str, list[float | None], float | None]]:
    """Return each class with its recall in both runs and the change, the largest change first."""
    names = dict.fromkeys(name for figures in candidates if figures for name in figures.class_accuracy)
    rows = []
    for name in names:
        before, after = (figures.class_accuracy.get(name) if figures else None for figures in candidates)
        rows.append((name, [before, after], None if before is None or after is None else after - before))
    return sorted(rows, key=lambda row: -abs(row[2] or 0))


def _charts(runs: list[Report]) -> list[str]:
    wanted = (
        ("Accuracy on val", "val_accuracy", ".0%"),
        ("Loss on val", "val_loss", ""),
        ("Accuracy in training", "accuracy", ".0%"),
        ("Loss in training", "loss", ""),
    )
    drawn = []
    for title, figure, format in wanted:
        lines = {
            run.run: (run.history, figure)
            for run in runs
            if run.history and getattr(run.history[-1], figure) is not None
        }
        if lines:
            drawn.append(charts.curves(title, "", lines, format))
    return drawn

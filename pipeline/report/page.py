"""Page of one run."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from components.data.gate.bounds import LEVELS
from components.data.gate.page import largest_and_smallest
from components.model.evaluator.judgement import Judgement, ModelFigures
from pipeline.drawing import attention_maps, charts
from pipeline.drawing.document import document, figure, share
from pipeline.report.model import Report
from pipeline.result.differences import flat
from pipeline.result.figures import best_epoch
from pipeline.result.run_result import RunState

_MOST_CLASSES = 200  # classes in the heat map; more would be unreadable, and take megabytes
_MOST_ROWS = 100  # classes in a table


def render(report: Report, folder: Path) -> str:
    """Return the page as one HTML file that needs no network.

    Args:
        report: contents of the page.
        folder: folder that the page will be written to, for its relative links.
    """
    judgement = report.judgement
    return document(
        Path(__file__).with_suffix(".html"),
        report=report,
        # Checks that stopped the run come first.
        findings=sorted(report.data.findings, key=lambda finding: LEVELS.index(finding.level)) if report.data else [],
        colour="ok" if report.state is RunState.DONE else "stop",
        sections=_sections(report),
        data_page=os.path.relpath(report.data.page, folder) if report.data else "",
        **_explained(report),
        trials=sorted(report.trials, key=lambda trial: (trial.state != "complete", -(trial.accuracy or 0))),
        best=best_epoch(report.history),
        overall=overall_figures([judgement.candidate, judgement.serving]) if judgement else {},
        classes=_classes(judgement)[:_MOST_ROWS] if judgement else [],
        counted=largest_and_smallest(report.data.labels["train"], _MOST_ROWS) if report.data else [],
        longest=max((node.seconds for node in report.nodes), default=0) or 1,
        settings=flat(report.settings),
        charts=_charts(report),
    )


def overall_figures(models: list[ModelFigures | None]) -> dict[str, list[str]]:
    """Return the figures of models as text.

    Args:
        models: figures of each model; None for a missing one.

    Returns:
        For each name of a figure, the text for each model, which is empty for a missing model.
    """

    def of_each(text: Callable[[ModelFigures], str]) -> list[str]:
        return [text(figures) if figures else "" for figures in models]

    looks = dict.fromkeys(look for figures in models if figures for look in figures.looks_accuracy)
    return {
        "test images": of_each(lambda figures: f"{figures.examples:,}"),
        "accuracy": of_each(_accuracy_with_interval),
        "top 3": of_each(lambda figures: share(figures.top_3)),
        "log loss": of_each(lambda figures: figure(figures.log_loss)),
        "calibration error": of_each(lambda figures: figure(figures.calibration_error)),
        **{f"accuracy, {look}": of_each(partial(_share_of_look, look)) for look in looks},
    }


def _accuracy_with_interval(figures: ModelFigures) -> str:
    low, high = figures.accuracy_interval
    return f"{share(figures.accuracy)} ({share(low)} to {share(high)})"


def _share_of_look(look: str, figures: ModelFigures) -> str:
    return share(figures.looks_accuracy.get(look))


def _sections(report: Report) -> list[str]:
    contents = {
        "data": report.data,
        "tuning": report.trials,
        "training": report.history,
        "gate": report.judgement,
        "classes": report.judgement,
        "calibration": report.calibration,
        "mistakes": report.mistakes or report.unexplained,
        "serving": report.serving,
        "steps": True,
        "lineage": report.lineage,
        "settings": True,
    }
    return [name for name, content in contents.items() if content]


def _explained(report: Report) -> dict[str, Any]:
    """Return the mistakes that have attention maps, and the legend of the maps."""
    explained = [mistake for mistake in report.mistakes if mistake.explained]
    grid = next((mistake.explained.grid for mistake in explained if mistake.explained), 1)
    return {"explained": explained, "grid": grid, "legend": attention_maps.legend()}


def _classes(judgement: Judgement) -> list[dict[str, Any]]:
    """Return a row for each class in the test set, the lowest recall first."""
    candidate, serving = judgement.candidate, judgement.serving
    rows = []
    for place, (name, counts) in enumerate(zip(candidate.classes, candidate.confusion, strict=True)):
        if name not in candidate.class_accuracy:
            continue
        wrong = {other: count for other, count in enumerate(counts) if other != place and count}
        most = max(wrong, key=lambda other: wrong[other], default=None)
        rows.append(
            {
                "name": name,
                "recall": candidate.class_accuracy[name],
                "interval": candidate.class_accuracy_interval[name],
                "precision": candidate.class_precision[name],
                "serving": serving.class_accuracy.get(name) if serving else None,
                "taken_for": "" if most is None else f"{candidate.classes[most]}, {wrong[most]:,}",
            }
        )
    return sorted(rows, key=lambda row: row["recall"])


def _charts(report: Report) -> dict[str, Any]:
    by_section: dict[str, Any] = {}
    if trials := report.trials:
        names = {name: log for name, log in _searched(report).items() if name in trials[0].values}
        by_section["tuning"] = [
            charts.trials_by_number(trials),
            *(charts.trials_by_value(name, trials, log) for name, log in names.items()),
        ]
    if rows := report.history:
        accuracy, loss = {"train": (rows, "accuracy")}, {"train": (rows, "loss")}
        if rows[-1].val_accuracy is not None:
            accuracy["val"], loss["val"] = (rows, "val_accuracy"), (rows, "val_loss")
        by_section["training"] = [
            charts.curves("Accuracy", "share", accuracy, ".0%"),
            charts.curves("Loss", "", loss),
            charts.curves("Learning rate at the end of an epoch", "", {"learning rate": (rows, "learning_rate")}),
            charts.curves("Speed", "images/s", {"images/s": (rows, "images_per_second")}),
        ]
    if report.judgement and len(report.judgement.candidate.classes) <= _MOST_CLASSES:
        by_section["confusion"] = charts.confusion(
            report.judgement.candidate.classes, report.judgement.candidate.confusion
        )
    if report.calibration:
        by_section["calibration"] = [charts.reliability(report.calibration), charts.confidences(report.calibration)]
    return by_section


def _searched(report: Report) -> dict[str, bool]:
    """Return the names of the searched settings, and whether each is searched by its logarithm."""
    space = report.settings.get("tune", {}).get("space", {})
    return {
        f"{group}.{name}": bool(dimension["log"])
        for group, dimensions in space.items()
        for name, dimension in dimensions.items()
        if dimension
    }

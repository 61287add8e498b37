"""The figures at the top of a run's page."""

from __future__ import annotations

import math

from pipeline.result.run_result import RunResult
from vitpipe.ui.training import Training

Figure = tuple[str, str, str]  # name, value and a note


def key_figures(result: RunResult, training: Training | None) -> list[Figure]:
    """Return the measured figures of a run; empty if nothing was measured.

    Args:
        result: Outcome of the run.
        training: Its training; None if it has none.
    """
    measured = result.figures
    found: list[Figure] = []
    for key, name, form in (
        ("accuracy", "Test accuracy", "{:.2%}"),
        ("top_3", "Test top 3", "{:.2%}"),
        ("log_loss", "Test log loss", "{:.4f}"),
        ("calibration_error", "Calibration error", "{:.4f}"),
    ):
        value = measured.get(key)
        if isinstance(value, float) and math.isfinite(value):
            found.append((name, form.format(value), _interval(measured.get(f"{key}_interval"))))
    if training:
        best, last = training.best, training.epochs[-1]
        if best.val_accuracy is not None:
            found.append(("Best val accuracy", f"{best.val_accuracy:.2%}", f"epoch {best.epoch}"))
        found.append(("Training loss", f"{last.loss:.4f}", f"epoch {last.epoch}"))
    return found


def _interval(value: object) -> str:
    match value:
        case [float() as low, float() as high]:
            return f"{low:.2%} to {high:.2%}"
    return ""

"""Differences between two runs."""

from collections.abc import Mapping
from typing import Any

from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.records import Run
from pipeline.result.run_result import RunResult
from pipeline.result.summary import summarise

_FACTS = ("code_version", "lock_digest", "data_digest", "gate_data_digest", "trigger", "reason", "accepted")
# Figures of the model gate about the whole test set.
FIGURES = ("accuracy", "top_3", "log_loss", "calibration_error")


def differences(one: Run, other: Run) -> list[tuple[str, Any, Any]]:
    """Return the settings, facts and figures that differ between two runs.

    Args:
        one: the first run.
        other: the second run.

    Returns:
        For each difference its name, the value in the first and the value in the second run. The value is None in a run
        that lacks it.
    """
    left, right = _facts(one), _facts(other)
    return [
        (name, left.get(name), right.get(name))
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted keys such as `a.b.c`.

    Args:
        tree: the nested mappings. An empty mapping counts as a leaf.
        prefix: start of each key.
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return leaves


def _facts(run: Run) -> dict[str, Any]:
    result = RunResult(run)
    summary, figures = summarise(result), result.figures
    return {
        **flat(result.settings),
        **{name: run.facts.get(name) for name in _FACTS},
        "earlier_spans": _earlier_spans(result),
        "state": str(summary.state),
        "blessed": summary.blessed,
        "pushed": summary.pushed,
        "unreadable": "; ".join(summary.unreadable) or None,
        **{name: figures.get(name) for name in FIGURES},
        **flat(_mapping(figures.get("class_accuracy")), "class_accuracy."),
    }


def _earlier_spans(result: RunResult) -> str | None:
    """Return the earlier spans of a window as text; None if there are none, or the store does not tell."""
    try:
        trained_on = result.trained_on
    except UnreadableError:
        return None
    return ", ".join(map(str, trained_on.earlier)) or None if trained_on else None


def _mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping unchanged, and an empty one for any other value, because anyone may write to a store."""
    return value if isinstance(value, Mapping) else {}

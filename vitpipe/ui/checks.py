"""Checks of a run's gates, with one line for each."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.metadata.properties import UnreadableError
from pipeline.result.run_result import RunResult


@dataclass(frozen=True)
class Line:
    """`level` is ok, warning, accepted or stop."""

    gate: str
    level: str
    text: str


def check_lines(result: RunResult) -> list[Line]:
    """Every check of the data, the model and its serving, in the order they are made; a person's words last."""
    lines: list[Line] = []
    for gate, part in {"data": _data, "model": _model, "serving": _serving}.items():
        try:
            lines += part(result)
        except UnreadableError as error:  # written by another version, or not by us
            lines.append(Line(gate, "warning", str(error)))
    return lines


def _data(result: RunResult) -> list[Line]:
    findings = result.data.findings if result.data else []
    return [Line("data", finding.level, str(finding)) for finding in findings]


def _model(result: RunResult) -> list[Line]:
    lines = [Line("model", "ok" if check.passed else "stop", str(check)) for check in result.model_checks]
    if result.override:
        lines.append(Line("model", "accepted", f"blessed by a person: {result.override.reason}"))
    return lines


def _serving(result: RunResult) -> list[Line]:
    checks = result.serving.checks if result.serving else []
    return [Line("serving", "ok" if check.passed else "stop", str(check)) for check in checks]

"""What a run's gates weighed, a line a check."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from components.data.gate.bounds import Finding
from components.model.evaluator.judgement import OVERRIDE, Check, Override
from pipeline.metadata.properties import Unreadable, read
from pipeline.metadata.records import Run
from pipeline.result.summary import last_output


@dataclass(frozen=True)
class Line:
    """`level` is ok, warning, accepted or stop."""

    gate: str
    level: str
    text: str


class _Judgement(BaseModel):
    checks: list[Check]


def weighed(run: Run) -> list[Line]:
    """Every check of the data, the model and its serving, in the order they are made; a person's words last."""
    lines: list[Line] = []
    for gate, part in {"data": _data, "model": _model, "serving": _serving}.items():
        try:
            lines += part(run)
        except Unreadable as error:  # written by another version, or not by us
            lines.append(Line(gate, "warning", str(error)))
    return lines


def _data(run: Run) -> list[Line]:
    verdict = last_output(run, "DataVerdict")
    findings = (
        read(verdict.properties, "findings", list[Finding]) if verdict and "findings" in verdict.properties else []
    )
    return [Line("data", finding.level, str(finding)) for finding in findings]


def _model(run: Run) -> list[Line]:
    blessing = last_output(run, "ModelBlessing")
    if blessing is None or "judgement" not in blessing.properties:  # of another pipeline
        return []
    checks = read(blessing.properties, "judgement", _Judgement).checks
    lines = [Line("model", "ok" if check.passed else "stop", str(check)) for check in checks]
    if OVERRIDE in blessing.properties:
        reason = read(blessing.properties, OVERRIDE, Override).reason
        lines.append(Line("model", "accepted", f"blessed by a person: {reason}"))
    return lines


def _serving(run: Run) -> list[Line]:
    infra = last_output(run, "InfraBlessing")
    checks = read(infra.properties, "checks", list[Check]) if infra and "checks" in infra.properties else []
    return [Line("serving", "ok" if check.passed else "stop", str(check)) for check in checks]

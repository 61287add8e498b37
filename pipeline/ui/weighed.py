"""What a run's gates weighed, a line a check."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pydantic

from components.data_bounds import Finding
from components.gate import OVERRIDE, Check
from pipeline.metadata.summary import judgement_of, last_output
from pipeline.metadata.views import Run


@dataclass(frozen=True)
class Line:
    """`level` is ok, warning, accepted or stop."""

    gate: str
    level: str
    text: str


def weighed(run: Run) -> list[Line]:
    """Every check of the data, the model and its serving, in the order they are made; a person's words last."""
    try:
        return [*_data(run), *_model(run), *_serving(run)]
    except (pydantic.ValidationError, ValueError, TypeError, KeyError):
        return []  # written by another version, or not by us: the artifacts' own pages show it as it is


def _data(run: Run) -> list[Line]:
    verdict = last_output(run, "DataVerdict")
    found = json.loads(str(verdict.properties["findings"])) if verdict else []
    findings = [Finding.model_validate(one) for one in found]
    return [Line("data", finding.level, str(finding)) for finding in findings]


def _model(run: Run) -> list[Line]:
    checks = [Check.model_validate(one) for one in judgement_of(run).get("checks", [])]
    lines = [Line("model", "ok" if check.passed else "stop", str(check)) for check in checks]
    blessing = last_output(run, "ModelBlessing")
    if blessing and OVERRIDE in blessing.properties:
        reason = json.loads(str(blessing.properties[OVERRIDE]))["reason"]
        lines.append(Line("model", "accepted", f"blessed by a person: {reason}"))
    return lines


def _serving(run: Run) -> list[Line]:
    infra = last_output(run, "InfraBlessing")
    checks = [Check.model_validate(one) for one in json.loads(str(infra.properties["checks"]))] if infra else []
    return [Line("serving", "ok" if check.passed else "stop", str(check)) for check in checks]

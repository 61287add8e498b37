"""Checks of a run's gates, as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from components.data.gate.bounds import Finding
from components.model.evaluator.judgement import Check
from pipeline.metadata.properties import UnreadableError
from pipeline.result.run_result import RunResult, RunState


@dataclass(frozen=True)
class Row:
    """One check. `level` is ok, warning, accepted or stop.

    `bar` has the measured value, the bound and the interval if all of them are fractions, and is None otherwise.
    """

    name: str
    level: str
    measured: str
    interval: str = ""
    bound: str = ""
    detail: str = ""
    bar: tuple[float, float, tuple[float, float] | None] | None = None


@dataclass(frozen=True)
class Gate:
    """One gate with its checks. `summary` is its verdict in a sentence; `rows` is empty without a verdict."""

    name: str
    summary: str
    rows: Sequence[Row]

    @property
    def notable(self) -> Sequence[Row]:
        """Checks that did not simply pass."""
        return [row for row in self.rows if row.level != "ok"]


def gates(result: RunResult) -> list[Gate]:
    """Return the gates of the model, of its serving and of the data, in this order."""
    parts = {"Model": _model, "Serving": _serving, "Data": _data}
    missing = "This gate has not run yet." if result.state is RunState.RUNNING else "The run ended before this gate."
    found = []
    for name, part in parts.items():
        try:
            gate = part(result)
            found.append(gate if gate.summary else replace(gate, summary=missing))
        except UnreadableError as error:  # recorded by another version or another program
            found.append(Gate(name, str(error), [Row("record", "warning", "", detail=str(error))]))
    return found


def stopping_states(result: RunResult) -> dict[str, str]:
    """Return the gates that did not pass, by node, with the state of a run that they stop."""
    verdicts: dict[str, tuple[Callable[[], bool | None], RunState]] = {
        "DataGate": (lambda: result.data_passed, RunState.REFUSED),
        "Evaluator": (lambda: result.blessed, RunState.NOT_BLESSED),
        "ServingCheck": (lambda: result.servable, RunState.NOT_SERVABLE),
    }
    stopping = {}
    for node, (passed, state) in verdicts.items():
        with suppress(UnreadableError):
            if passed() is False:
                stopping[node] = str(state)
    return stopping


def _model(result: RunResult) -> Gate:
    rows = [_row(check) for check in result.model_checks]
    if result.override:
        rows.append(Row("override", "accepted", "", detail=f"blessed by a person: {result.override.reason}"))
    examples = result.figures.get("examples")
    where = f" It was measured on {examples:,} test images." if isinstance(examples, int) else ""
    verdict = {True: "The model is blessed.", False: "The model is not blessed.", None: ""}
    return Gate("Model", verdict[result.blessed] + where, rows)


def _serving(result: RunResult) -> Gate:
    rows = [_row(check) for check in result.serving.checks] if result.serving else []
    verdict = {True: "The model can be served.", False: "The model cannot be served.", None: ""}
    return Gate("Serving", verdict[result.servable], rows)


def _data(result: RunResult) -> Gate:
    rows = [_finding(finding) for finding in result.data.findings] if result.data else []
    verdict = {True: "The data passed.", False: "The data was refused.", None: ""}
    return Gate("Data", verdict[result.data_passed], rows)


def _row(check: Check) -> Row:
    fractions = 0 <= check.value <= 1 and 0 < check.bound < 1
    level = "ok" if check.satisfied else "warning" if check.passed else "stop"
    noise = "may be chance" if level == "warning" else ""
    return Row(
        check.name,
        level,
        f"{check.value:.4f}",
        "{:.4f} to {:.4f}".format(*check.interval) if check.interval else "",
        f"{check.sense} {check.bound:.4f}",
        "; ".join(filter(None, [noise, check.detail])),
        (check.value, check.bound, check.interval) if fractions else None,
    )


def _finding(finding: Finding) -> Row:
    bound = finding.bound.warn if finding.level == "warning" else finding.bound.stop
    allowed = "" if bound is None else f"{finding.sense} {bound:g}"
    details = [finding.text]
    if finding.examples:
        details.append(f"first: {', '.join(finding.examples[:3])}")
    if finding.level == "accepted":
        details.append(f"accepted: {finding.accepted}")
    if finding.level == "stop" and finding.fix:
        details.append(finding.fix)
    return Row(finding.check, finding.level, f"{finding.value:.4g}", bound=allowed, detail="; ".join(details))

"""Report of a monitoring, as it is printed and recorded. Imports no TensorFlow, so that pages can show it."""

from datetime import datetime
from typing import Any, Self

from pydantic import AwareDatetime, Field

from components.data.gate.bounds import Finding
from components.data.statistics.figures import SplitFigures
from components.errors import Exit
from components.model.evaluator.judgement import Interval
from pipeline.monitoring.log_files import Problems
from trainer.settings import Group

REPORT = "report.json"  # file of a MonitorReport artifact that holds `MonitorReport`

_ACCURACY_CHECKS = ("expected_accuracy_loss", "accuracy_loss")


class WindowFinding(Finding):
    """Finding of a window. Its thresholds are at least `chance`."""

    chance: float  # limit that unchanged traffic rarely exceeds by chance


class Unchecked(Group):
    """Check that a window does not have, because the log lacks what it needs."""

    check: str
    reason: str


class FarImage(Group):
    """Image of a window that is far from the training images."""

    place: str  # in the log
    distance: float  # in standard deviations of the training images, averaged over the measures
    answer: str  # predicted class; empty if it is unknown
    picture: str = ""  # data URI of a small copy


class Window(Group):
    """Figures of one window of the answers of one version."""

    number: int  # place in the report, from 1
    version: int
    start: datetime | None  # time of the first answer, if the log has times
    end: datetime | None
    answers: int  # for which the request did not fail
    failed: int
    invalid: int  # answers whose image cannot be used
    unreadable: int = 0  # answers that the model cannot have given
    latency_ms: dict[str, float]  # percentiles p50, p95 and p99; empty if the log has no latency
    figures: SplitFigures | None  # of the images; `labels` are the predicted classes. None without images
    predicted: dict[str, int]  # answers by predicted class, in index order
    confidences: list[int]  # histogram of confidence
    expected_accuracy: float | None  # that the calibrated confidence predicts
    expected_accuracy_interval: Interval | None
    labelled: int  # answers with a true label
    accuracy: float | None  # on the answers with a true label
    accuracy_interval: Interval | None
    findings: list[WindowFinding]
    unchecked: list[Unchecked] = Field(default_factory=list)  # reports of earlier versions have none
    farthest: list[FarImage]

    def as_json(self) -> dict[str, Any]:
        """Return the window as values for `json.dumps`, with the severity of each finding."""
        findings = [
            finding.model_dump(mode="json", by_alias=False) | {"level": finding.level} for finding in self.findings
        ]
        return {**self.model_dump(mode="json", by_alias=False), "findings": findings}

    def without_pictures(self) -> Self:
        """Return the window with the places of its farthest images only."""
        farthest = [image.model_copy(update={"picture": ""}) for image in self.farthest]
        return self.model_copy(update={"farthest": farthest})

    @property
    def alerts(self) -> list[WindowFinding]:
        """Findings past `stop`."""
        return [finding for finding in self.findings if finding.level == "stop"]

    @property
    def warnings(self) -> list[WindowFinding]:
        """Findings past `warn`, but not past `stop`."""
        return [finding for finding in self.findings if finding.level == "warning"]


class LogProblem(Group):
    """Part of a log that cannot be used."""

    reason: str
    count: int
    places: list[str]  # the first ones


class MonitorReport(Group):
    """Windows of traffic, and what could not be read."""

    pipeline: str
    created: AwareDatetime
    logs: str
    false_alerts: float  # probability of a warning or an alert on unchanged traffic, at most
    windows: list[Window]
    problems: list[LogProblem]

    @property
    def alerts(self) -> int:
        """Number of alerts in all windows."""
        return sum(len(window.alerts) for window in self.windows)

    @property
    def first_alert(self) -> str:
        """Description of the first alert; empty without alerts."""
        return next(iter(self.version_alerts.values()), "")

    @property
    def version_alerts(self) -> dict[str, str]:
        """Description of the first alert of each version that has one, in the order of the windows."""
        first: dict[str, str] = {}
        for window in self.windows:
            for alert in window.alerts[:1]:
                text = f"window {window.number} of version {window.version}: {alert.check}: {alert.text}"
                first.setdefault(str(window.version), text)
        return first

    @property
    def exit(self) -> Exit:
        """Exit code: 3 for an alert about traffic, 4 if only the accuracy is lower than allowed."""
        checks = {alert.check for window in self.windows for alert in window.alerts}
        if not checks:
            return Exit.OK
        return Exit.NOT_BLESSED if checks <= {*_ACCURACY_CHECKS} else Exit.DATA_REFUSED

    def as_json(self) -> dict[str, Any]:
        """Return the report as values for `json.dumps`, with the severity of each finding."""
        return {
            **self.model_dump(mode="json", by_alias=False, exclude={"windows"}),
            "alerts": self.alerts,
            "exit": int(self.exit),
            "windows": [window.as_json() for window in self.windows],
        }


def log_problems(problems: Problems) -> list[LogProblem]:
    """Return the problems, the most frequent first."""
    return [
        LogProblem(reason=reason, count=count, places=problems.places[reason])
        for reason, count in problems.counts.most_common()
    ]

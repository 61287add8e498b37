"""Report of a monitoring, as it is printed and recorded."""

from pydantic import AwareDatetime

from components.errors import Exit
from pipeline.monitoring.log_files import Problems
from pipeline.monitoring.windows import Window
from trainer.settings import Group

REPORT = "report.json"  # file of a MonitorReport artifact that holds `MonitorReport`

_ACCURACY_CHECKS = ("expected_accuracy_loss", "accuracy_loss")


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
        for window in self.windows:
            for alert in window.alerts:
                return f"window {window.number} of version {window.version}: {alert.check}: {alert.text}"
        return ""

    @property
    def exit(self) -> Exit:
        """Exit code: 3 for an alert about traffic, 4 if only the accuracy is lower than allowed."""
        checks = {alert.check for window in self.windows for alert in window.alerts}
        if not checks:
            return Exit.OK
        return Exit.NOT_BLESSED if checks <= {*_ACCURACY_CHECKS} else Exit.DATA_REFUSED


def log_problems(problems: Problems) -> list[LogProblem]:
    """Return the problems, the most frequent first."""
    return [
        LogProblem(reason=reason, count=count, places=problems.places[reason])
        for reason, count in problems.counts.most_common()
    ]

"""Windows of traffic beside the model that answered it, from the reports of `vitpipe monitor`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.data.gate.bounds import Level
from components.data.ingest import safe_files
from components.errors import DataRefused
from pipeline.metadata.garbage import MONITORED, is_own_folder
from pipeline.metadata.reader import Reader
from pipeline.metadata.records import Artifact
from pipeline.monitoring.report import REPORT, FarImage, LogProblem, MonitorReport, Window, WindowFinding

MOST_WINDOWS = 60  # on a page

_MOST_REPORTS = 60  # that are read for a page
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Row:
    """Window of a report."""

    report: int  # id of the artifact
    window: Window

    @property
    def key(self) -> str:
        """Name of the window that is unique on a page."""
        return f"window-{self.report}-{self.window.number}"

    @property
    def findings(self) -> list[WindowFinding]:
        """Alerts, then warnings."""
        return [*self.window.alerts, *self.window.warnings]

    @property
    def level(self) -> Level:
        """Severity of the worst finding."""
        return self.findings[0].level if self.findings else "ok"

    @property
    def title(self) -> str:
        """Description of the window with its findings."""
        start = self.window.start.strftime(" from %Y-%m-%d %H:%M:%S UTC") if self.window.start else ""
        findings = [f"alert {alert.check}" for alert in self.window.alerts]
        findings += [f"warning {warning.check}" for warning in self.window.warnings]
        return f"Window {self.report}, {self.window.number}{start}: {', '.join(findings) or 'ok'}"

    @property
    def pictures(self) -> list[FarImage]:
        """Images that are farthest from the training images, the farthest first."""
        return [image for image in self.window.farthest if image.picture]


@dataclass(frozen=True)
class FindingGroup:
    """Windows in which the same check has an alert, or a warning."""

    rows: list[Row]
    finding: WindowFinding  # of the newest window


@dataclass(frozen=True)
class MissingChecks:
    """Checks that windows do not have for one reason."""

    reason: str
    checks: list[str]
    rows: list[Row]


@dataclass(frozen=True)
class Traffic:
    """Windows and problems of one or several reports."""

    rows: list[Row]  # the newest window first
    problems: list[tuple[int, LogProblem]]  # each with the id of its report

    @property
    def levels(self) -> Counter[str]:
        """Number of windows of each severity."""
        return Counter(row.level for row in self.rows)

    @property
    def groups(self) -> list[FindingGroup]:
        """Alerts, then warnings, each with its windows."""
        groups: dict[tuple[str, str], FindingGroup] = {}
        for row in self.rows:
            for finding in row.findings:
                groups.setdefault((finding.level, finding.check), FindingGroup([], finding)).rows.append(row)
        return sorted(groups.values(), key=lambda group: group.finding.level != "stop")

    @property
    def missing(self) -> list[MissingChecks]:
        """Checks that windows do not have, by reason."""
        reasons: dict[str, MissingChecks] = {}
        for row in self.rows:
            for unchecked in row.window.unchecked:
                missing = reasons.setdefault(unchecked.reason, MissingChecks(unchecked.reason, [], []))
                if unchecked.check not in missing.checks:
                    missing.checks.append(unchecked.check)
                if row not in missing.rows[-1:]:
                    missing.rows.append(row)
        return [*reasons.values()]

    @property
    def pictured(self) -> list[Row]:
        """Windows whose farthest images are shown: those with an alert, or else the newest one."""
        chosen = [row for row in self.rows if row.level == "stop"] or self.rows[:1]
        return [row for row in chosen if row.pictures]


def traffic(store: Reader, artifact: Artifact, runs: Path) -> Traffic:
    """Return the newest windows of a report, or of the reports about a pushed model, and the problems of the logs.

    Args:
        store: Reader of the store.
        artifact: The artifact that a page shows.
        runs: Folder of the run folders. No report outside of them is read.
    """
    reports: list[tuple[int, MonitorReport]] = []
    rows: list[Row] = []
    for number, report in _reports(store, artifact, runs):
        reports.append((number, report))
        rows += [
            Row(number, window)
            for window in reversed(report.windows)
            if artifact.type == MONITORED or str(window.version) == artifact.properties.get("pushed_version")
        ]
        if len(rows) >= MOST_WINDOWS:
            break
    # With --follow, each report repeats the problems that the earlier ones have, so the newest one counts.
    problems: dict[tuple[str, str], tuple[int, LogProblem]] = {}
    for number, report in reports:
        for problem in report.problems:
            problems.setdefault((report.logs, problem.reason), (number, problem))
    return Traffic(rows[:MOST_WINDOWS], [*problems.values()])


def _reports(store: Reader, artifact: Artifact, runs: Path) -> Iterator[tuple[int, MonitorReport]]:
    """Yield a report, or the reports about a pushed model that can be read, the newest first, each with its id."""
    if artifact.type == MONITORED:
        candidates = [artifact]
    elif artifact.type == "PushedModel" and artifact.properties.get("pushed"):
        candidates = [
            report
            for report in store.artifacts(MONITORED, "live", since_ms=artifact.created_ms, limit=_MOST_REPORTS)
            if report.uri.rpartition("/root/")[0] == artifact.uri.rpartition("/root/")[0]
            and artifact.properties.get("pushed_version") in str(report.properties.get("versions")).split(", ")
        ]
    else:
        candidates = []
    for candidate in candidates:
        if not any(is_own_folder(candidate.uri, root.parent.resolve() / root.name) for root in runs.glob("*/root")):
            continue
        with contextlib.suppress(OSError, ValueError, DataRefused):
            content = safe_files.read_bytes(Path(candidate.uri) / REPORT, _MAX_BYTES)
            yield candidate.id, MonitorReport.model_validate_json(content)

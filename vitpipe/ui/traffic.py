"""Windows of traffic beside the model that answered it, from the reports of `vitpipe monitor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.data.ingest import safe_files
from components.errors import DataRefused
from pipeline.metadata.garbage import MONITORED, is_own_folder
from pipeline.metadata.reader import Reader
from pipeline.metadata.records import Artifact
from pipeline.monitoring.report import REPORT, FarImage, MonitorReport, Window

MOST_WINDOWS = 60  # on a page

_MOST_REPORTS = 60  # that are read for a page
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Row:
    """Window of a report."""

    report: int  # id of the artifact
    window: Window


def traffic(store: Reader, artifact: Artifact, runs: Path) -> list[Row]:
    """Return the newest windows of a report, or of the reports about a pushed model, the newest first.

    Args:
        store: Reader of the store.
        artifact: The artifact that a page shows.
        runs: Folder of the run folders. No report outside of them is read.
    """
    if artifact.type == MONITORED:
        return _rows(artifact, runs)[:MOST_WINDOWS]
    if artifact.type != "PushedModel" or not artifact.properties.get("pushed"):
        return []
    rows: list[Row] = []
    for report in store.artifacts(MONITORED, "live", since_ms=artifact.created_ms, limit=_MOST_REPORTS):
        if report.uri.partition("/root/")[0] == artifact.uri.partition("/root/")[0]:
            version = artifact.properties.get("pushed_version")
            rows += [row for row in _rows(report, runs) if str(row.window.version) == version]
        if len(rows) >= MOST_WINDOWS:
            break
    return rows[:MOST_WINDOWS]


def farthest(rows: list[Row]) -> list[FarImage]:
    """Return the images of the newest window with an alert, or of the newest window; the farthest first."""
    chosen = next((row for row in rows if row.window.alerts), rows[0] if rows else None)
    return [image for image in chosen.window.farthest if image.picture] if chosen else []


def _rows(report: Artifact, runs: Path) -> list[Row]:
    """Return the windows of a report, the newest first; none if its file is missing or cannot be read."""
    if not any(is_own_folder(report.uri, root.parent.resolve() / root.name) for root in runs.glob("*/root")):
        return []
    try:
        content = safe_files.read_bytes(Path(report.uri) / REPORT, _MAX_BYTES)
        windows = MonitorReport.model_validate_json(content).windows
    except (OSError, ValueError, DataRefused):
        return []
    return [Row(report.id, window) for window in reversed(windows)]

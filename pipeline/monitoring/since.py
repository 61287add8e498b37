"""Time from which on the answers of a log are used: a fixed time, or the end of the recorded windows."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path

from components.data.ingest import safe_files
from components.errors import DataRefused, UsageError
from pipeline.metadata.address import Address
from pipeline.metadata.garbage import MONITORED, is_own_folder
from pipeline.metadata.reader import reader
from pipeline.monitoring.report import REPORT, MonitorReport

LAST = "last"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds

_MOST_REPORTS = 100  # that are read
_MAX_BYTES = 64 * 2**20


def since_time(text: str) -> float:
    """Return a time in seconds since 1970: ISO 8601, in UTC without a time zone, or a time ago such as `1h`.

    Raises:
        UsageError: if the text is neither.
    """
    if match := re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", text):
        return time.time() - int(match[1]) * UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text}: it is neither a time nor `{LAST}`: write for example 2026-01-31T12:00:00Z, 1h or {LAST}"
        ) from None


def recorded_ends(address: Address, root: Path, logs: str) -> dict[int, float]:
    """Return the time of the last recorded answer of each version, from the newest reports about some logs.

    Args:
        address: address of ML Metadata.
        root: absolute path of the folder of the pipeline's artifacts.
        logs: the logs, as their reports name them.

    Raises:
        StoreError: if ML Metadata cannot be read.
    """
    with reader(address) as store:
        artifacts = store.artifacts(MONITORED, "live", properties=[("logs", logs)], limit=_MOST_REPORTS)
    ends: dict[int, float] = {}
    for artifact in artifacts:
        if not is_own_folder(artifact.uri, root):
            continue
        try:
            content = safe_files.read_bytes(Path(artifact.uri) / REPORT, _MAX_BYTES)
            windows = MonitorReport.model_validate_json(content).windows
        except (OSError, ValueError, DataRefused):  # somebody removed or changed the file
            continue
        for window in windows:
            if window.end is not None:
                ends[window.version] = max(ends.get(window.version, 0), window.end.timestamp())
    return ends

"""Arguments of the monitor: size of a window, earliest time, true labels, engine."""

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from components.data.ingest import rows
from components.errors import UsageError
from pipeline.beam import check_job_service
from pipeline.beam_tasks import TaskRunner
from pipeline.monitoring.serving_log import MAX_ID, answer_id
from pipeline.settings import LayeredSettings, explicit_sources, merge_sources
from pipeline.settings.beam import BeamSettings

_MOST_IMAGES = 10_000_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds


class WindowSize(NamedTuple):
    """Size of a window: a number of answers, or a time."""

    images: int | None
    seconds: float | None


class _Engine(LayeredSettings):
    """Settings of the engine that measures images. Those that the run recorded are not used."""

    beam: BeamSettings = BeamSettings()


def window_size(text: str) -> WindowSize:
    """Return the size of a window: `500` answers, or a time such as `30m`, `1h` or `1d`.

    Raises:
        UsageError: if the text is neither.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,7})([smhd]?)", text)
    if match is None or (not match[2] and int(match[1]) > _MOST_IMAGES):
        raise UsageError(
            f"--window {text}: it is neither a number of answers up to {_MOST_IMAGES:,} nor a time: write for example "
            "1000, 30m, 1h or 1d"
        )
    number = int(match[1])
    return WindowSize(None, float(number * _UNITS[match[2]])) if match[2] else WindowSize(number, None)


def since_time(text: str) -> float:
    """Return a time in seconds since 1970: ISO 8601, in UTC without a time zone, or a duration before now such as `1h`.

    Raises:
        UsageError: if the text is neither.
    """
    if match := re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", text):
        return time.time() - int(match[1]) * _UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text}: it is neither a time nor a duration: write for example 2026-01-31T12:00:00Z or 1h"
        ) from None


def read_labels(table: Path | None) -> dict[str, str]:
    """Return the true classes by id, or an empty dict without a table. Rows without an id or a label are left out.

    Raises:
        UsageError: if the path is not a table with the columns `id` and `label`, no row has both, or two rows
            contradict each other.
        DataRefused: if the table cannot be read.
    """
    if table is None:
        return {}
    if rows.ending(table) not in rows.ENDINGS:
        raise UsageError(f"--labels {table}: its name must end in {', '.join(rows.ENDINGS)}")
    if not table.is_file():
        raise UsageError(f"--labels {table} is not a file: name a table with the columns id and label")
    if missing := {"id", "label"} - {*rows.columns(table)}:
        raise UsageError(f"--labels {table} has no column {' and no column '.join(sorted(missing))}: add it")
    labels: dict[str, str] = {}
    for where, cells in rows.rows(table, ["id", "label"]):
        id, label = answer_id(cells.get("id")), rows.class_name(cells.get("label"))
        if not 0 < len(id) <= MAX_ID or label is None:
            continue
        if labels.setdefault(id, label) != label:
            raise UsageError(
                f"--labels {table}: {where}: id {id!r} has the label {label!r}, but an earlier row has "
                f"{labels[id]!r}: keep one of them"
            )
    if not labels:
        raise UsageError(f"--labels {table}: no row has both an id and a label, as texts or whole numbers: enter them")
    return labels


def engine(overrides: Sequence[str], repeated: Callable[[str], None]) -> TaskRunner | None:
    """Return the function that runs tasks on the engine of the settings `beam.*`; None without an engine.

    Args:
        overrides: settings as `a.b=c`, of which only those of the engine are used.
        repeated: called with a message before tasks are run again.

    Raises:
        SettingsError: if a setting is wrong.
        EngineError: if the job service of the engine does not answer.
    """
    flags = [flag for flag in overrides if is_engine_setting(flag)]
    settings = merge_sources(_Engine, explicit_sources(flags, groups=_Engine.model_fields)).beam
    if settings.runner == "local":
        return None
    check_job_service(settings)
    return TaskRunner(settings, repeated)


def is_engine_setting(flag: str) -> bool:
    """Return whether a flag `a.b=c` sets something in the group `beam`."""
    return flag.partition("=")[0].partition(".")[0] == "beam"

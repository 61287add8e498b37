"""Differences of a run from its preset and from an earlier run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from components.errors import SettingsError
from pipeline.metadata.reader import Reader
from pipeline.metadata.records import Run
from pipeline.result.differences import differences, flat
from pipeline.result.run_result import RunResult
from pipeline.settings import Settings, load, presets

_PLACES = ("data.span", "name", "runs")  # every run has its own
_MOST_SEARCHED = 20  # number of earlier runs that are searched for one that measured a model


@dataclass(frozen=True)
class Change:
    """A setting with its value in the run and in the preset, as JSON."""

    name: str
    value: str
    preset: str


@dataclass(frozen=True)
class Changes:
    """All settings of a run, and those that differ from the preset `preset`, or from the defaults if it is empty."""

    preset: str
    changes: Sequence[Change]
    settings: dict[str, str]


def changes(result: RunResult) -> Changes | None:
    """Return the settings of a run, compared with those of the preset named like its pipeline.

    A pipeline without such a preset is compared with the defaults. None if the run recorded no settings.
    """
    recorded = flat(result.settings)
    if not recorded:
        return None
    name, base = "", Settings()
    if result.pipeline in presets():
        with suppress(SettingsError):  # the preset was edited and is invalid
            name, base = result.pipeline, load(result.pipeline, environment={})
    preset: dict[str, Any] = flat(base.model_dump(mode="json"))
    differing = [
        Change(key, _text(value), _text(preset[key]))
        for key, value in recorded.items()
        if key in preset and key not in _PLACES and value != preset[key]
    ]
    return Changes(name, differing, {key: _text(value) for key, value in recorded.items()})


def since_earlier(run: Run, store: Reader) -> tuple[str, list[tuple[str, Any, Any]]] | None:
    """Compare a run with the newest earlier run of its pipeline that measured a model.

    Args:
        run: The run.
        store: The store that contains it.

    Returns:
        The name of the earlier run and the differences, without the accuracies of single classes. None if this run
        measured no model, or if no such earlier run is found.
    """
    names = store.run_names() if RunResult(run).figures else []
    start = names.index(run.name) + 1 if run.name in names else len(names)
    for other in store.runs_named(names[start : start + _MOST_SEARCHED]):
        if other.pipeline == run.pipeline and RunResult(other).figures:
            found = differences(other, run)
            return other.name, [row for row in found if not row[0].startswith("class_accuracy.")]
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

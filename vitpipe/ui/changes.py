"""Settings of a run that differ from its preset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from components.errors import SettingsError
from pipeline.result.differences import flat
from pipeline.result.run_result import RunResult
from pipeline.settings import Settings, load, presets

_PLACES = ("data.span", "name", "runs")  # every run has its own


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


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

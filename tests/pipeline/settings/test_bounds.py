"""Bounds and descriptions of settings, also of fields that are added later: every number is finite and bounded."""

import json
import typing

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.settings import Settings
from trainer.settings import SettingsGroup
from vitpipe.study.settings import BUDGETS, StudySettings

HUGE = [float("nan"), float("inf"), -float("inf"), 10**20, -(10**20), 1e308]


def places(group, place=()):
    """Yield the keys that lead to each number of a group, and how many numbers its list has."""
    for name, field in group.model_fields.items():
        yield from _of(field.annotation, (*place, name))


def _of(kind, place):
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        assert issubclass(kind, SettingsGroup), f"{kind.__name__} must be a SettingsGroup"
        yield from places(kind, place)
    elif kind in (int, float):
        yield place
    for argument in typing.get_args(kind) if typing.get_origin(kind) is not typing.Literal else ():
        yield from _of(
            argument, (*place, typing.get_origin(kind)) if typing.get_origin(kind) in (tuple, dict) else place
        )


def with_value(place, value):
    """Return nested settings with one value."""
    if not place:
        return value
    key, rest = place[0], with_value(place[1:], value)
    if key is tuple:
        return [rest] * 3
    return {"Trainer" if key is dict else key: rest}


def numbers():
    for group in Settings, StudySettings:
        for place in sorted(set(places(group)), key=str):
            yield pytest.param(group, place, id=".".join(getattr(key, "__name__", key) for key in place))


def test_the_walk_finds_the_numbers():
    found = {".".join(map(str, place)) for place in places(Settings)}
    assert {
        "training.epochs",
        "data_gate.duplicates.stop",
        "kubeflow.step.gpus",
        "keep_versions",
        "data.span",
    } <= found
    assert len(found) > 80


@pytest.mark.parametrize(("group", "place"), [*numbers()])
def test_every_number_is_finite_and_bounded(group, place):
    given = json.loads(json.dumps(BUDGETS["small"])) if group is StudySettings else {}
    for value in HUGE:
        with pytest.raises(ValidationError) as refused:
            group.model_validate(given | with_value(place, value))
        keys = tuple("Trainer" if key is dict else key for key in place if key is not tuple)
        # All checks of the data gate are bounded together.
        wanted = keys[:1] if keys[0] in ("data_gate", "monitor") else keys
        assert refused.value.errors()[0]["loc"][: len(wanted)] == wanted, f"{value}: {refused.value}"


@pytest.mark.parametrize(("group", "place"), [*numbers()])
@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_not_numbers(group, place, value):
    given = BUDGETS["small"] if group is StudySettings else {}
    with pytest.raises(ValidationError, match="number, not true or false"):
        group.model_validate(given | with_value(place, value))


def groups(group):
    """Yield a group of settings and all groups in it."""
    yield group
    for field in group.model_fields.values():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from groups(kind)


@pytest.mark.parametrize(
    "group", dict.fromkeys([*groups(Settings), *groups(StudySettings)]), ids=lambda group: group.__name__
)
def test_every_setting_is_described_including_null(group):
    for name, field in group.model_fields.items():
        assert (field.description or "").endswith("."), name
        assert type(None) not in typing.get_args(field.annotation) or "null: " in field.description, name

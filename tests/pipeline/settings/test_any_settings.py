"""Any file, flag and variable ends in settings or in a SettingsError. Settings that are printed read back equal."""

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import event, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from components.data.ingest import MAX_SPAN
from components.errors import SettingsError
from pipeline.settings import PRESETS, Settings, load, presets, strict_yaml
from tests.helpers.damage import maybe_damaged, mostly
from vitpipe.study.settings import study_settings


def fields(group: type[BaseModel], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The keys that lead to each setting, with its type."""
    found: dict[tuple[str, ...], Any] = {}
    for name, field in group.model_fields.items():
        found[*prefix, name] = field.annotation
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields(field.annotation, (*prefix, name))
    return found


FIELDS = fields(Settings)
texts = st.one_of(
    st.text(max_size=12),
    st.text("abc019-eE.+_:~ ", max_size=8),
    st.sampled_from(
        ["", "~", "null", "no", "1e5", "0o7", "010", "1_000", "1:30", ".inf", "-.5", "2024-01-01", "=", "<<", "0x1f"]
    ),
)
plain_numbers = st.one_of(
    st.integers(-2, 5000),
    st.integers(),
    st.floats(0, 1),
    st.floats(),
    st.sampled_from([2**31, 2**63 - 1, 2**64, 10**40, 1e-30, 1e16, 1e22]),
)
scalars = st.one_of(st.none(), st.booleans(), plain_numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["warn", "stop", "cpu"]) | texts, inner, max_size=3)
    ),
    max_leaves=5,
)
YAML = [
    "\0",
    "\t",
    "&a ",
    "*a",
    "!!x ",
    "!!python/object:x ",
    "[",
    "{",
    "- ",
    "? ",
    ": ",
    "'",
    '"',
    "\n---\n",
    "|\n",
    ".inf",
    ".nan",
    "1e308",
    "9" * 5000,
    "<<: ",
    '"\\0"',
    "%",
    "\u2028",
    "\ufeff",
    "# ",
    "\r",
    "\x85",
    "[" * 200,
]


def alike(annotation: Any) -> st.SearchStrategy:
    """Values that a field of this type may well accept."""
    kinds = {
        int: st.integers(0, 512),
        float: st.floats(0, 20) | st.floats(0, 1),
        bool: st.booleans(),
        str: texts,
        Path: texts,
    }
    if annotation in kinds:
        return kinds[annotation]
    if annotation is type(None):
        return st.none()
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        return st.tuples(*map(alike, get_args(annotation)))
    if get_args(annotation):
        return st.one_of(*map(alike, get_args(annotation)))
    return st.nothing()


@st.composite
def assignments(draw: st.DrawFn) -> tuple[tuple[str, ...], Any]:
    """A setting, mostly a real one, and a value that mostly suits it."""
    place = draw(mostly(st.sampled_from([*FIELDS]), st.lists(texts, min_size=1, max_size=6).map(tuple)))
    suiting = alike(FIELDS.get(place))
    return place, draw(values if suiting.is_empty else mostly(suiting, values))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Where each example is written."""
    return tmp_path_factory.mktemp("any") / "settings.yaml"


def loaded(source: str, flags: list[str] | None = None, environment: dict[str, str] | None = None) -> Settings | None:
    try:
        settings = load(source, flags, environment or {})
    except SettingsError as error:
        event("refused")
        assert 0 < len(str(error)) < 5000
        return None
    event("settings")
    settings.resolved(1).encode()
    return settings


def nested(place: tuple[str, ...], value: object) -> dict[str, Any]:
    for key in reversed(place):
        value = {key: value}
    return value  # type: ignore[return-value]


def merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


@st.composite
def setting_files(draw: st.DrawFn) -> bytes:
    """A file that sets real fields, to anything."""
    content: dict[str, Any] = {}
    if draw(st.booleans()):
        content["preset"] = draw(mostly(st.sampled_from(presets()), texts))
    for place, value in draw(st.lists(assignments(), min_size=1, max_size=3)):
        merge(content, nested(place, value))
    text = yaml.safe_dump(content, allow_unicode=draw(st.booleans()), default_flow_style=draw(st.booleans()))
    if draw(mostly(False, st.just(True))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(YAML)) + text[at:]
    return text.encode("utf-8", "surrogatepass")


@given(content=setting_files())
def test_any_file_of_settings(file, content):
    file.write_bytes(content)
    loaded(str(file))


@given(
    content=st.one_of(
        st.sampled_from(sorted(PRESETS.glob("*.yaml"))).map(Path.read_bytes).flatmap(maybe_damaged),
        st.lists(st.sampled_from(YAML) | st.text(max_size=3), max_size=12).map(lambda some: "".join(some).encode()),
        st.binary(max_size=60),
    )
)
def test_any_yaml(file, content):
    file.write_bytes(content)
    loaded(str(file))


@given(
    assignment=assignments(), style=st.sampled_from([str, json.dumps, strict_yaml.dump]), piece=st.sampled_from(YAML)
)
@example(assignment=(("model", "size"), []), style=str, piece="")
def test_any_flag_or_variable(assignment, style, piece):
    place, value = assignment[0], style(assignment[1])
    flag = f"{'.'.join(place)}={value}"
    loaded("sample", [flag])
    loaded("sample", [flag + piece, piece])
    loaded("sample", [], {"VITPIPE_" + "__".join(place).upper(): value})
    try:
        study_settings("small", [flag])
    except SettingsError as error:
        assert 0 < len(str(error)) < 5000


NOT_RECORDED = {"metadata", "kubeflow"}
RECORDED = [place for place in FIELDS if place[0] not in NOT_RECORDED and not alike(FIELDS[place]).is_empty]


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    """Settings that differ from a preset's in some fields."""
    settings = load(draw(st.sampled_from(presets())), environment={})
    tree = settings.model_dump(exclude=NOT_RECORDED)
    for *groups, last in draw(st.lists(st.sampled_from(RECORDED), max_size=6)):
        parent = tree
        for group in groups:
            parent = parent[group]
        before, parent[last] = parent[last], draw(alike(FIELDS[*groups, last]))
        try:
            settings = Settings.model_validate(tree)
        except ValidationError:
            parent[last] = before
    return settings


@given(settings=any_settings(), span=st.integers(1, MAX_SPAN))
@example(settings=Settings(name="1e5"), span=1)
def test_settings_that_are_printed_read_back_equal(file, settings, span):
    expected = settings.model_dump(exclude=NOT_RECORDED)
    expected["data"]["span"] = span
    resolved = settings.resolved(span)
    assert Settings.model_validate_json(resolved).model_dump(exclude=NOT_RECORDED) == expected
    file.write_text(strict_yaml.dump(json.loads(resolved)))
    read = load(str(file), environment={})
    assert read.model_dump(exclude=NOT_RECORDED) == expected
    assert read.resolved(span) == settings.resolved(span)

"""Reference of all settings, made from their declarations."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from components.data.gate.bounds import Bound
from pipeline.settings import Settings

_WORDS = {"path": "path", "password": "secret"}  # formats of JSON Schema
_LIMITS = {
    "exclusiveMinimum": "> ",
    "minimum": ">= ",
    "exclusiveMaximum": "< ",
    "maximum": "<= ",
    "maxLength": "length <= ",
    "pattern": "",
}


class Setting(NamedTuple):
    """One setting of the reference. `value` and `default` are plain values, as in JSON and YAML."""

    name: str
    type: str
    default: Any
    bounds: str
    description: str
    value: Any


def reference(settings: Settings) -> Iterator[Setting]:
    """Yield every setting, with its value in `settings`, in the order of declaration."""
    schema = Settings.model_json_schema()
    defaults, values = (some.model_dump(mode="json") for some in (Settings(), settings))
    yield from _group(schema, schema["$defs"], defaults, values)


def _group(
    schema: Mapping[str, Any],
    groups: Mapping[str, Any],
    defaults: Mapping[str, Any],
    values: Mapping[str, Any],
    prefix: str = "",
    about: str = "",
) -> Iterator[Setting]:
    for key, field in schema["properties"].items():
        name, description = prefix + key, " ".join(filter(None, [about, field["description"]]))
        if "$ref" in field:
            group = field["$ref"].rpartition("/")[2]
            about_both = description if group == Bound.__name__ else ""  # a check describes both of its thresholds
            yield from _group(groups[group], groups, defaults[key], values[key], f"{name}.", about_both)
        else:
            yield Setting(name, _type(field), defaults[key], ", ".join(_bounds(field)), description, values[key])


def _type(field: Mapping[str, Any]) -> str:
    """Return the type of a field of a JSON Schema in words."""
    if "anyOf" in field:
        return " or ".join(map(_type, field["anyOf"]))
    if "enum" in field:
        return " | ".join(value or json.dumps(value) for value in field["enum"])
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2].removesuffix("Settings").lower()
    if parts := _parts(field):
        return f"{'list of' if field['type'] == 'array' else 'mapping to'} {_type(parts[0])}"
    return _WORDS.get(field.get("format", ""), str(field["type"]))


def _bounds(field: Mapping[str, Any]) -> Iterator[str]:
    """Yield the bounds of a field and of its parts."""
    for key, sign in _LIMITS.items():
        if key in field:
            yield sign + (field[key] if isinstance(field[key], str) else f"{field[key]:.12g}")
    for part in [*field.get("anyOf", []), *_parts(field)]:
        yield from _bounds(part)


def _parts(field: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the schema of the values of a list or mapping; empty for other types."""
    parts = [field.get("items"), *field.get("prefixItems", []), field.get("additionalProperties")]
    parts += field.get("patternProperties", {}).values()
    return [part for part in parts if isinstance(part, dict)][:1]

"""Properties that hold JSON. An unreadable one is reported, and everything around it is still shown.

Anyone may write to a store, and an interrupted or older writer may leave something that this version does not expect.
"""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from components.errors import StoreError
from pipeline.metadata.records import Value

Kind = TypeVar("Kind")


class Unreadable(StoreError):
    """A property that does not hold what this version writes there; the message names it, the value and the reason."""


def read(properties: Mapping[str, Value], name: str, kind: type[Kind]) -> Kind:
    """Return the JSON of a property as a value of `kind`.

    Args:
        properties: those of an artifact, an execution or a run.
        name: the property's name.
        kind: any type that pydantic can validate.

    Raises:
        Unreadable: if the property is missing, is not JSON, or is JSON of another kind.
    """
    value, wanted = properties.get(name), cast(Any, kind)  # pydantic takes more than classes
    if value is None:
        raise Unreadable(f"the property {name} is missing")
    try:
        return cast(Kind, _adapter(wanted).validate_json(str(value)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise unreadable(name, value, f"{where}: {first['msg']}" if where else first["msg"]) from None


def read_flag(properties: Mapping[str, Value], name: str) -> bool:
    """Return a property that is 0 or 1.

    Args:
        properties: those of an artifact.
        name: the property's name.

    Raises:
        Unreadable: if it is missing or anything else.
    """
    value = properties.get(name)
    if value not in (0, 1):
        raise unreadable(name, value, "it is 0 or 1")
    return value == 1


def read_text(properties: Mapping[str, Value], name: str) -> str:
    """Return a property as text.

    Args:
        properties: those of an artifact or a run.
        name: the property's name.

    Raises:
        Unreadable: if it is missing.
    """
    value = properties.get(name)
    if value is None:
        raise Unreadable(f"the property {name} is missing")
    return str(value)


def unreadable(name: str, value: Value, reason: str) -> Unreadable:
    """Return the error that says why a property cannot be used.

    Args:
        name: the property's name.
        value: the property's value.
        reason: what is expected, or what is wrong.
    """
    return Unreadable(f"the property {name} is {_short(value)} and cannot be read ({reason})")


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _short(value: Value) -> str:
    shortened = reprlib.Repr()
    shortened.maxstring = 60
    return shortened.repr(value)

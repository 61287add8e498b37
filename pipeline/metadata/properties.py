"""Decoding of properties in a store.

Anyone may write to a store, and an interrupted writer or another version may leave an unexpected value. Such a property
raises an error of its own, so that callers can report it and still show everything else.
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


class UnreadableError(StoreError):
    """A property has a value that this version cannot read. The message has its name, the value and the reason."""


def read(properties: Mapping[str, Value], name: str, kind: type[Kind]) -> Kind:
    """Return the JSON of a property as a value of `kind`.

    Args:
        properties: properties of an artifact, an execution or a run.
        name: the property's name.
        kind: any type that pydantic can validate.

    Raises:
        UnreadableError: if the property is missing, is not JSON, or is JSON of another kind.
    """
    value, wanted = properties.get(name), cast(Any, kind)  # pydantic accepts more than classes
    if value is None:
        raise UnreadableError(f"the property {name} is missing")
    try:
        return cast(Kind, _adapter(wanted).validate_json(str(value)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise unreadable(name, value, f"{where}: {first['msg']}" if where else first["msg"]) from None


def read_flag(properties: Mapping[str, Value], name: str) -> bool:
    """Return a property that is 0 or 1 as a bool.

    Args:
        properties: properties of an artifact.
        name: the property's name.

    Raises:
        UnreadableError: if it is missing or has another value.
    """
    value = properties.get(name)
    if value not in (0, 1):
        raise unreadable(name, value, "it must be 0 or 1")
    return value == 1


def read_text(properties: Mapping[str, Value], name: str) -> str:
    """Return a property as text.

    Args:
        properties: properties of an artifact or a run.
        name: the property's name.

    Raises:
        UnreadableError: if it is missing.
    """
    value = properties.get(name)
    if value is None:
        raise UnreadableError(f"the property {name} is missing")
    return str(value)


def unreadable(name: str, value: Value, reason: str) -> UnreadableError:
    """Return the error for a property that cannot be used.

    Args:
        name: the property's name.
        value: the property's value.
        reason: what is expected, or what is wrong.
    """
    return UnreadableError(f"the property {name} is {_short(value)} and cannot be read ({reason})")


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _short(value: Value) -> str:
    shortened = reprlib.Repr()
    shortened.maxstring = 60
    return shortened.repr(value)

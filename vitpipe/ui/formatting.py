"""Format of values on the pages."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime

from pipeline.metadata.records import Value

_STRUCT = "mlmd-struct::"  # prefix with which TFX stores a value that is neither a number nor text
_CLASSES = {
    "done": "ok",
    "complete": "ok",
    "blessed": "ok",
    "live": "ok",
    "cached": "cached",
    "running": "warning",
    "new": "warning",
    "not blessed": "warning",
    "pending": "warning",
    "failed": "stop",
    "died": "stop",
    "data refused": "stop",
    "not servable": "stop",
    "canceled": "stop",
}


def css_class(state: str) -> str:
    """Return the class of a state in the style sheet."""
    return _CLASSES.get(state, "soft")


def when(time: datetime | int) -> str:
    """Return a time, or milliseconds since 1970, as text with a precision of one second."""
    moment = datetime.fromtimestamp(time / 1000, UTC) if isinstance(time, int) else time
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def pretty(value: Value) -> str:
    """Return JSON and TFX's structures indented over several lines, and other values as text."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    if value.startswith(_STRUCT):
        return _indented(_structure(value.removeprefix(_STRUCT)))
    if value[:1] in ("{", "["):
        try:
            return _indented(json.loads(value))
        except ValueError:
            return value
    return value


def _indented(value: object) -> str:
    """Return indented JSON, with each list of plain values on one line: a confusion matrix then reads as a matrix."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return re.sub(
        r"\[\n *([^\[\]{}]*?)\n *\]", lambda found: f"[{' '.join(map(str.strip, found[1].splitlines()))}]", text
    )


def _structure(text: str) -> object:
    from google.protobuf import json_format, struct_pb2

    try:
        fields = json_format.MessageToDict(struct_pb2.Struct.FromString(base64.b64decode(text)))
    except Exception:  # another program may have stored anything
        return text
    return fields.get("__value__", fields)

"""Format of values on the pages."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime

from pipeline.metadata.records import Value

_STRUCT = "mlmd-struct::"  # how TFX writes a value that is no number or text
_LOOKS = {
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


def looks(state: str) -> str:
    """The class of a state in the style sheet."""
    return _LOOKS.get(state, "soft")


def when(time: datetime | int) -> str:
    """A moment, or milliseconds since 1970, to the second."""
    moment = datetime.fromtimestamp(time / 1000, UTC) if isinstance(time, int) else time
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def pretty(value: Value) -> str:
    """JSON and TFX's structures over several lines; other values as they are."""
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
    """JSON over several lines, but a list of plain values on one: a confusion matrix is to be seen as one."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return re.sub(
        r"\[\n *([^\[\]{}]*?)\n *\]", lambda found: f"[{' '.join(map(str.strip, found[1].splitlines()))}]", text
    )


def _structure(text: str) -> object:
    from google.protobuf import json_format, struct_pb2

    try:
        fields = json_format.MessageToDict(struct_pb2.Struct.FromString(base64.b64decode(text)))
    except Exception:  # not ours to judge what another writer put there
        return text
    return fields.get("__value__", fields)

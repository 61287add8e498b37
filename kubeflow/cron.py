"""When a schedule starts runs, as a person writes it and as Kubeflow Pipelines wants it."""

import calendar
import re
from typing import NamedTuple

from components.errors import UsageError


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()  # of its values, from the least


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, tuple(calendar.month_abbr[month].lower() for month in range(1, 13))),
    _Field("day of the week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_PART = re.compile(r"(?:[*?]|(?P<first>\w{1,9})(?:-(?P<last>\w{1,9}))?)(?:/(?P<step>\d{1,4}))?", re.ASCII)
_UNITS = {"m": 60, "h": 3600, "d": 86400}


def six_fields(cron: str) -> str:
    """The usual five fields with the second 0 before them, or six as they are. Raises UsageError.

    Kubeflow reads five fields, too, but as those from the second to the month: `0 3 * * *` would be each hour.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise UsageError(
            f'--cron "{cron}": it has {len(fields)} fields; write the minute, hour, day of the month, month and day of '
            'the week in UTC, with a second before them or without: "0 3 * * *" is each night at three'
        )
    values = [_values(cron, field, text) for field, text in zip(_FIELDS, fields, strict=True)]
    days, months, week = values[3], values[4], fields[5]
    longest = max(calendar.monthrange(2024, month)[1] for month in months)  # a leap year
    if week[0] in "*?" and min(days) > longest:
        raise UsageError(f'--cron "{cron}": never, for no such month has {min(days)} days')
    return " ".join(fields)


def seconds(every: str) -> int:
    """Of `90m`, `6h`, `2d` or `1d12h`. Raises UsageError."""
    if not re.fullmatch(r"(\d{1,6}d)?(\d{1,6}h)?(\d{1,6}m)?", every) or not every:
        raise UsageError(f"--every {every}: write minutes, hours or days, for example 90m, 6h or 1d12h")
    found = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([mhd])", every))
    if found < 60:
        raise UsageError(f"--every {every}: at least 1m, for one run at a time is started")
    return found


def _values(cron: str, field: _Field, text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if not match:
            raise UsageError(f'--cron "{cron}": {part!r} is no {field.name}; write *, 5, 1-5, */2 or 1,15')
        step = int(match["step"] or 1)
        if step == 0:
            raise UsageError(f'--cron "{cron}": {part!r}, in the {field.name}, has steps of 0')
        first, last = field.least, field.most
        if match["first"]:
            first = _value(cron, field, match["first"])
            last = _value(cron, field, match["last"]) if match["last"] else (field.most if match["step"] else first)
        if last < first:
            raise UsageError(f'--cron "{cron}": {part!r}, in the {field.name}, ends before it begins')
        found |= set(range(first, last + 1, step))
    return found


def _value(cron: str, field: _Field, text: str) -> int:
    if text.lower() in field.names:
        return field.least + field.names.index(text.lower())
    if not text.isdecimal() or not field.least <= int(text) <= field.most:
        known = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise UsageError(
            f'--cron "{cron}": {text!r} is no {field.name}; it goes from {field.least} to {field.most}{known}'
        )
    return int(text)

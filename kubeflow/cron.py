"""When a schedule starts runs, as a person writes it and as Kubeflow Pipelines wants it."""

import re
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from components.errors import UsageError

_FIELDS = {  # and the values of each
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31",
    "month": "1 to 12, or jan to dec",
    "day of the week": "0 to 6, or sun to sat",
}
# What Kubeflow reads, too. CronSim alone would also take L, 5#2 and the 7th day of the week, and no question mark.
_VALUE = r"(\d{1,9}|[a-z]{3})"
_PART = re.compile(rf"([*?]|{_VALUE}(-{_VALUE})?)(/\d{{1,4}})?", re.ASCII | re.IGNORECASE)
_SEVENTH_DAY = re.compile(r"(.*-)?0*7(/.*)?")
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
    for place, (name, values) in enumerate(_FIELDS.items()):
        for part in fields[place].split(","):
            if not _is_valid(part, place):
                raise UsageError(
                    f'--cron "{cron}": {part!r} is no {name}; it goes from {values}; write *, 5, 1-5 (the smaller '
                    "first), */2 (at least 1) or 1,15"
                )
    if not _is_read(fields):
        raise UsageError(f'--cron "{cron}": never, for no such month has that many days')
    return " ".join(fields)


def seconds(every: str) -> int:
    """Return the seconds of an interval such as `90m`, `6h`, `2d` or `1d12h`. Raises UsageError."""
    if not re.fullmatch(r"(\d{1,6}d)?(\d{1,6}h)?(\d{1,6}m)?", every) or not every:
        raise UsageError(f"--every {every}: write minutes, hours or days, for example 90m, 6h or 1d12h")
    found = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([mhd])", every))
    if found < 60:
        raise UsageError(f"--every {every}: at least 1m, for one run at a time is started")
    return found


def _is_valid(part: str, place: int) -> bool:
    """Return whether a part between commas is valid in the field at that place."""
    if not _PART.fullmatch(part) or (place == 5 and _SEVENTH_DAY.fullmatch(part)):
        return False
    others = ["*"] * len(_FIELDS)
    return _is_read([*others[:place], part, *others[place + 1 :]])


def _is_read(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields).replace("?", "*"), datetime.now(UTC))
    except CronSimError:
        return False
    return True

"""Start times of a schedule: checks of what the user writes, and the form that Kubeflow Pipelines expects."""

import re
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from components.errors import UsageError

_FIELDS = {  # the fields of a cron expression, with their values
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31",
    "month": "1 to 12, or jan to dec",
    "day of the week": "0 to 6, or sun to sat",
}
# The syntax that Kubeflow accepts. CronSim differs from it: it also accepts L, 5#2 and day 7 of the week, but not `?`.
_VALUE = r"(\d{1,9}|[a-z]{3})"
_PART = re.compile(rf"([*?]|{_VALUE}(-{_VALUE})?)(/\d{{1,4}})?", re.ASCII | re.IGNORECASE)
_SEVENTH_DAY = re.compile(r"(.*-)?0*7(/.*)?")
_UNITS = {"m": 60, "h": 3600, "d": 86400}


def six_fields(cron: str) -> str:
    """Return a cron expression with six fields, as Kubeflow expects it.

    Five fields, the usual form, get a 0 for the second. Kubeflow itself would read five fields as those from the second
    to the month, so that `0 3 * * *` would start a run every hour.

    Raises:
        UsageError: if the expression is invalid.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise UsageError(
            f'--cron "{cron}" has the wrong number of fields, {len(fields)}. Write minute, hour, day of the month, '
            'month and day of the week in UTC, optionally with a second before them: "0 3 * * *" is every night at '
            "three"
        )
    for place, (name, values) in enumerate(_FIELDS.items()):
        for part in fields[place].split(","):
            if not _is_valid(part, place):
                raise UsageError(
                    f'--cron "{cron}": {part!r} is not a valid {name}. Allowed are {values}, written like *, 5, 1-5 '
                    "(the smaller first), */2 (at least 1) or 1,15"
                )
    if not _is_readable(fields):
        raise UsageError(f'--cron "{cron}" would never start a run, because no such month has that many days')
    return " ".join(fields)


def seconds(every: str) -> int:
    """Return the seconds of an interval such as `90m`, `6h`, `2d` or `1d12h`.

    Raises:
        UsageError: if the interval is invalid, or shorter than a minute.
    """
    if not re.fullmatch(r"(\d{1,6}d)?(\d{1,6}h)?(\d{1,6}m)?", every) or not every:
        raise UsageError(f"--every {every}: write minutes, hours or days, for example 90m, 6h or 1d12h")
    found = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([mhd])", every))
    if found < 60:
        raise UsageError(f"--every {every} is shorter than the minimum of 1m")
    return found


def _is_valid(part: str, place: int) -> bool:
    """Return whether a part between commas is valid in the field with this index."""
    if not _PART.fullmatch(part) or (place == 5 and _SEVENTH_DAY.fullmatch(part)):
        return False
    others = ["*"] * len(_FIELDS)
    return _is_readable([*others[:place], part, *others[place + 1 :]])


def _is_readable(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields).replace("?", "*"), datetime.now(UTC))
    except CronSimError:
        return False
    return True

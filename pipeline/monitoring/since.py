"""Time from which on the answers of a log are used."""

import re
import time
from datetime import UTC, datetime

from components.errors import UsageError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds


def since_time(text: str) -> float:
    """Return a time in seconds since 1970: ISO 8601, in UTC without a time zone, or a duration before now such as `1h`.

    Raises:
        UsageError: if the text is neither.
    """
    if match := re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", text):
        return time.time() - int(match[1]) * UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text}: it is neither a time nor a duration: write for example 2026-01-31T12:00:00Z or 1h"
        ) from None

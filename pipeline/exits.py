"""Exit codes of the `vitpipe` command."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0  # pushed, or nothing to do
    CRASHED = 1
    USAGE = 2  # bad usage or settings
    DATA_REFUSED = 3
    NOT_BLESSED = 4
    NOT_SERVABLE = 5

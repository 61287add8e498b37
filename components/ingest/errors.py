"""The two ways in which preparing data says no."""


class DataRefused(Exception):
    """The data is not fit for use. The message names the value, the bound and the cure; exit code 3."""


class UsageError(ValueError):
    """The call is wrong, whatever the data: a missing path, a span number that is taken; exit code 2."""

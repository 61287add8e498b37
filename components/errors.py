"""Errors that a user can act on, and the exit codes that commands and steps end with."""

from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit codes of the `vitpipe` command and of the steps on a cluster."""

    OK = 0  # pushed, or no new model to push
    CRASHED = 1
    USAGE = 2  # bad usage or settings
    DATA_REFUSED = 3
    NOT_BLESSED = 4
    NOT_SERVABLE = 5


class VitpipeError(Exception):
    """Base class of all errors that a user can act on.

    The message says what is wrong, with the value; what is allowed; and what to do. Each argument describes one
    problem and becomes one line of the message. A command that fails with such an error prints the message without a
    traceback.
    """

    exit: ClassVar[Exit] = Exit.CRASHED

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(VitpipeError, ValueError):
    """The call itself is wrong: a path is missing, a run does not exist, or a span number is taken."""

    exit = Exit.USAGE


class SettingsError(UsageError):
    """A setting is wrong, or settings contradict each other."""


class NotFound(UsageError):
    """No run, artifact or store has the name that the user gave."""


class AnotherRun(UsageError):
    """Another run of the same pipeline is still running."""


class DataRefused(VitpipeError):
    """The data is not fit for use."""

    exit = Exit.DATA_REFUSED


class NotServable(VitpipeError):
    """The model failed its serving check."""

    exit = Exit.NOT_SERVABLE


class ExportRefused(VitpipeError):
    """A pushed model cannot be exported: the converted model misses a bound, or differs from the pushed one."""

    exit = Exit.NOT_BLESSED


class StoreError(VitpipeError):
    """The store of ML Metadata cannot be read or written."""


class ServerError(VitpipeError):
    """A model server or a webhook did not answer, or gave an unexpected answer."""


class StudyError(VitpipeError):
    """A cell of a study could not be trained."""


class ClusterError(VitpipeError):
    """Kubeflow Pipelines did not answer, or gave an unexpected answer."""


class EngineError(VitpipeError):
    """The engine that runs the Beam jobs did not answer, or lost a job."""


class TrackingError(VitpipeError):
    """A tracking server did not answer, or rejected a request."""

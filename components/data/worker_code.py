"""Check that the workers of a Beam job run the code of the process that sent the job."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import components
import trainer
from components.errors import EngineError

_Result = TypeVar("_Result")


@functools.cache
def code_digest() -> str:
    """Return the sha256 of the sources of `components` and `trainer`, from which workers run functions."""
    digest = hashlib.sha256()
    for package in components, trainer:
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{package.__name__}/{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def with_same_code(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Return a function for workers that calls another one if the worker runs the code of this process.

    A worker finds functions by their names, in the code that its pool was started with. After an update, its results
    would be recorded as those of the new code.

    Args:
        function: the function, which workers find by its name.

    Returns:
        The function. It raises EngineError on a worker that runs other code.
    """
    return functools.partial(_call, code_digest(), function)


def _call(digest: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    if code_digest() != digest:
        raise EngineError(
            f"a worker of the engine runs other code (sha256 {code_digest()[:12]}) than the process that sent its job "
            f"({digest[:12]}): restart the pools with the vitpipe of that process"
        )
    return function(*arguments)

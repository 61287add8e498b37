"""Check that the workers of a Beam job run the code of the process that sent the job."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from components.errors import EngineError

_ROOT, _PACKAGES = Path(__file__).parents[2], ("components", "pipeline", "trainer")
_Result = TypeVar("_Result")


@functools.cache
def code_digest() -> str:
    """Return the sha256 of the sources of the packages whose functions workers run."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted((_ROOT / package).rglob("*.py")):
            digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def with_same_code(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Wrap a function of workers, so that it runs only on workers with the code of this process.

    A worker finds functions by their names, in the code that its pool was started with. After an update, results of the
    old code would be recorded as those of the new code.

    Args:
        function: the function, which workers find by its name.

    Returns:
        A function that raises EngineError on a worker with other code.
    """
    return functools.partial(_call, code_digest(), function)


def _call(digest: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    if code_digest() != digest:
        raise EngineError(
            f"a worker of the engine runs other code (sha256 {code_digest()[:12]}) than the process that sent its job "
            f"({digest[:12]}): restart the pools with the vitpipe of that process"
        )
    return function(*arguments)

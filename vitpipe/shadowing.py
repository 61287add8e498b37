"""Detection of foreign packages that hide ours, because Python imports the first package of a name that it finds.

Importing this module ends the process if a package that every command needs is hidden. The module imports none of our
other modules.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
# Every command imports these. Only one group of commands imports kubeflow.
_NEEDED = ("components", "pipeline", "trainer")


def shadows(names: tuple[str, ...] = ("components", "kubeflow", "pipeline", "trainer", "vitpipe")) -> list[str]:
    """Return a message for each of our packages that another package hides. It names the file and what to do."""
    return [
        _message(name, path) for name in names if (path := _imported_path(name)) != _ROOT / name and path is not None
    ]


def _imported_path(name: str) -> Path | None:
    """Return the path of the package or module that Python imports under this name."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def _message(name: str, path: Path) -> str:
    folder = path.parent
    file = path / "__init__.py" if (path / "__init__.py").is_file() else path
    python_path = {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    if folder in python_path:
        advice = f"take {folder} out of PYTHONPATH (`unset PYTHONPATH`)"
    elif folder == Path.cwd():
        advice = "run from another folder"
    else:
        advice = f"move the contents of {folder} to a separate environment"
    return f"{file} shadows {_ROOT / name}, which vitpipe needs: {advice}, or rename it"


if _messages := shadows(_NEEDED):
    print("\n".join(f"error: {message}" for message in _messages), file=sys.stderr)
    sys.exit(2)

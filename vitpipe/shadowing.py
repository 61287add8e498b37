"""Detection of foreign packages that hide ours: Python imports the first package of a name that it finds.

Importing this module ends the process if the command could not be imported. It imports none of our modules.
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
    """Return a sentence for each of our packages that another hides: which file, and what to do."""
    return [
        _sentence(name, path) for name in names if (path := _imported_path(name)) != _ROOT / name and path is not None
    ]


def _imported_path(name: str) -> Path | None:
    """Return the path of the package or module that Python imports under a name."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def _sentence(name: str, path: Path) -> str:
    folder = path.parent
    file = path / "__init__.py" if (path / "__init__.py").is_file() else path
    named = {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    if folder in named:
        advice = f"take {folder} out of PYTHONPATH (`unset PYTHONPATH`)"
    elif folder == Path.cwd():
        advice = "run from another folder"
    else:
        advice = f"move the contents of {folder} to an environment of their own"
    return f"{file} shadows {_ROOT / name}, which vitpipe needs: {advice}, or rename it"


if _lines := shadows(_NEEDED):
    print("\n".join(f"error: {line}" for line in _lines), file=sys.stderr)
    sys.exit(2)

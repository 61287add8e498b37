"""Packages of others that hide ours: Python takes the first of a name that it finds.

Importing this module ends the process where the command could not be imported. It imports nothing of ours.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_NEEDED = ("components", "trainer")  # by every command; kubeflow by one group of them, and pipeline is imported


def shadows(names: tuple[str, ...] = ("components", "kubeflow", "pipeline", "trainer", "vitpipe")) -> list[str]:
    """Return a sentence for each of our packages that another hides: which file, and what to do."""
    return [_sentence(name, found) for name in names if (found := _found(name)) != _ROOT / name and found is not None]


def _found(name: str) -> Path | None:
    """Return the package, or the module, that Python imports under a name."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def _sentence(name: str, found: Path) -> str:
    folder = found.parent
    file = found / "__init__.py" if (found / "__init__.py").is_file() else found
    named = {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    if folder in named:
        cure = f"take {folder} out of PYTHONPATH (`unset PYTHONPATH`)"
    elif folder == Path.cwd():
        cure = "run from another folder"
    else:
        cure = f"keep what is in {folder} in an environment of its own"
    return f"{file} shadows {_ROOT / name}, which vitpipe needs: {cure}, or rename it"


if _lines := shadows(_NEEDED):
    print("\n".join(f"error: {line}" for line in _lines), file=sys.stderr)
    sys.exit(2)

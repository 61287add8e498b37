"""Digest of the code that a step runs: TFX's cache does not see code that is reached by import path."""

import hashlib
import importlib.util
import subprocess
from collections.abc import Set
from functools import cache
from pathlib import Path

import grimp

_PACKAGES = ("pipeline", "components", "trainer")
ROOT = Path(__file__).resolve().parent.parent


@cache
def digest(*modules: str) -> str:
    """Return the sha256 of the sources of our `modules` and of all of ours that they import, however indirectly."""
    imported = set(modules).union(*(_import_graph().find_upstream_modules(module) for module in modules))
    digest = hashlib.sha256()
    for name in sorted(imported):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        for file in (
            Path(spec.origin),
            Path(spec.origin).with_suffix(".html"),
        ):  # a page's template lies beside its module
            if file.is_file():
                digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def modules() -> Set[str]:
    """Return the names of all our modules whose code a step may run."""
    return _import_graph().modules


@cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph(*_PACKAGES, cache_dir=None)


def code_version() -> str:
    """The commit, marked when files differ from it.

    Where there is no checkout: what the image was built from, which kubeflow/images/Dockerfile writes down, or else a
    digest of our sources.
    """
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        built_from = ROOT / "CODE_VERSION"
        return built_from.read_text().strip() if built_from.is_file() else f"sources-{digest('pipeline.run')[:12]}"


def lock_digest() -> str:
    """sha256 of the lock of what a run needs; empty where the lock is not shipped."""
    lock = ROOT / "requirements" / "base.txt"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""

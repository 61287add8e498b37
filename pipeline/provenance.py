"""Digests of the code that a step runs, which TFX's cache does not notice if it is reached by import path."""

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
    """Return the sha256 of the sources of `modules` and of all our modules that they import, directly or not."""
    imported = set(modules).union(*(_import_graph().find_upstream_modules(module) for module in modules))
    digest = hashlib.sha256()
    for name in sorted(imported):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        source = Path(spec.origin)
        for file in source, source.with_suffix(".html"), source.with_suffix(".md"):  # a template is beside its module
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
    """Return the commit of the checkout, marked `-dirty` if files differ from it.

    Without a checkout, it is the version that kubeflow/images/Dockerfile recorded in the image, or else a digest of our
    sources.
    """
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        built_from = ROOT / "CODE_VERSION"
        return built_from.read_text().strip() if built_from.is_file() else f"sources-{digest('pipeline.run')[:12]}"


def lock_digest() -> str:
    """Return the sha256 of the lock file of a run's dependencies; empty if the file is not installed."""
    lock = ROOT / "requirements" / "base.txt"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""

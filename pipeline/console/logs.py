"""Redirection of library output to a file, so that only our own output reaches the terminal."""

import contextlib
import io
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from pipeline.console.terminal import Escaping


@contextlib.contextmanager
def own_stderr() -> Iterator[TextIO]:
    """Yield a stream to the current standard error, which `redirected` does not affect."""
    with os.fdopen(os.dup(2), "w", buffering=1) as stream:
        yield cast(TextIO, Escaping(stream))


@contextlib.contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Append to a file what is written to standard output and standard error, by C++ libraries, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    saved = os.dup(1), os.dup(2)
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    handler = logging.StreamHandler(_stream(2))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before, root.handlers, level = root.handlers, [handler], root.level
    root.setLevel(logging.INFO)
    logging.getLogger("apache_beam").setLevel(logging.WARNING)  # it logs every type hint that it reads
    try:
        # In a notebook sys.stdout and sys.stderr do not write to the descriptors, so they are replaced as well.
        with contextlib.redirect_stdout(_stream(1)), contextlib.redirect_stderr(_stream(2)):
            yield
    finally:
        root.handlers = before
        root.setLevel(level)
        with contextlib.suppress(OSError):  # the operation that fails because of a full disk reports it
            _flush()
        for descriptor, copy in enumerate(saved, start=1):
            os.dup2(copy, descriptor)
            os.close(copy)


def display_path(path: Path) -> str:
    """Return a path as text, relative if it is below the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def runs_option(runs: Path) -> str:
    """Return the option, after a space, that a printed command needs to use the same run folders; empty by default.

    Args:
        runs: folder of the run folders, as the user named it.
    """
    return "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _stream(descriptor: int) -> TextIO:
    """Return an unbuffered text stream that escapes control characters, to a file descriptor that stays open."""
    file = io.FileIO(descriptor, "w", closefd=False)
    return cast(TextIO, Escaping(io.TextIOWrapper(cast(io.BufferedWriter, file), "utf-8", write_through=True)))

"""Lookup of stores, and of the store that holds a run."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from components.errors import NotFound, StoreError
from components.suggestions import nearest
from pipeline.console.terminal import printable
from pipeline.metadata.address import ADDRESS, Address, NoStoreError
from pipeline.metadata.reader import Reader, reader
from pipeline.metadata.records import Run

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


def server() -> Address | None:
    """Return the server that the environment names for all commands; None if it names none.

    Raises:
        StoreError: if the variable is not an address.
    """
    address = os.environ.get(ADDRESS)
    return Address.parse(address) if address else None


def stores(runs: Path) -> dict[str, Address]:
    """Return the stores of the run folders below `runs`, or only the server that the environment names.

    The keys are the names of the folders, or the name of the database on the server.

    Raises:
        NotFound: if the folder cannot be listed.
        StoreError: if the environment names a server with a wrong address.
    """
    if address_of_server := server():
        return {address_of_server.database: address_of_server}
    try:
        folders = sorted(runs.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NotFound(
            f"{runs} cannot be listed ({error.strerror}): name the folder of the run folders with --runs"
        ) from None
    return {
        folder.name: Address(file=folder / "metadata.db")
        for folder in folders
        if os.path.lexists(folder / "metadata.db") or (folder.is_dir() and not os.access(folder, os.X_OK))
    }


def ask_all(runs: Path, question: Callable[[Reader], Answer]) -> tuple[list[tuple[Address, Answer]], list[StoreError]]:
    """Query every store below `runs`, even if some of them cannot be read.

    Args:
        runs: the folder of the run folders.
        question: the query, called with the reader of each store.

    Returns:
        The answers, each with the address of its store, and the errors of the other stores.

    Raises:
        StoreError: if there are stores, but none of them can be read.
    """
    answers: list[tuple[Address, Answer]] = []
    problems: list[StoreError] = []
    for address in stores(runs).values():
        try:
            if address.file and not os.access(address.file.parent, os.X_OK):
                raise StoreError(f"{address.file.parent} cannot be entered: give this user permission, or move it away")
            with reader(address) as store:
                answers.append((address, question(store)))
        except StoreError as error:
            problems.append(error)
    if problems and not answers:
        raise problems[0]
    return answers, problems


def find_run(name: str, runs: Path) -> tuple[Address, Run]:
    """Find a run by its name.

    For `last`, each store that cannot be read is logged as a warning, because it may hold a newer run.

    Args:
        name: the name of the run, or `last` for the newest one.
        runs: the folder of the run folders.

    Returns:
        The address of the store that has the run, and the run.

    Raises:
        NotFound: if no readable store has the run. The error names similar runs, and the stores that cannot be read.
        StoreError: if there are stores, but none of them can be read.
    """
    known: list[str] = []
    if name == "last":
        newest, problems = ask_all(runs, lambda store: store.runs(limit=1))
        matches = [(address, run) for address, of_store in newest for run in of_store]
    else:
        answers, problems = ask_all(runs, lambda store: store.run(name) or store.run_names())
        matches = [(address, answer) for address, answer in answers if isinstance(answer, Run)]
        known = [run_name for _, answer in answers if not isinstance(answer, Run) for run_name in answer]
    if matches and name != "last":
        return matches[0]
    if matches:
        for problem in problems:
            log.warning("%s", printable(problem))
        return max(matches, key=lambda answer: answer[1].started_ms)
    if not known:
        text = f"no run below {runs}: start one with `vitpipe run`, or name another folder with --runs"
    else:
        like = nearest(name, known, most=3) or sorted(known)[-3:]
        text = f"no run {name} below {runs}; did you mean {', '.join(like)}?"
    raise NotFound(text, *problems)


def check_store(address: Address) -> None:
    """Check that a store can be read. A file that is missing or empty passes, because the first run creates the store.

    Raises:
        StoreError: if the store cannot be read.
    """
    if address.file and not (address.file.is_file() and address.file.stat().st_size == 0):
        with contextlib.suppress(NoStoreError), reader(address):
            pass


def store_of(pipeline: str | None, runs: Path) -> Address:
    """Return the store of one pipeline.

    Args:
        pipeline: name of the pipeline; None if there is only one store.
        runs: the folder of the run folders.

    Raises:
        NotFound: if there is no such store, or there are several and none is named.
    """
    if address_of_server := server():
        return address_of_server  # a server holds all pipelines
    known = stores(runs)
    if not known:
        raise NotFound(
            f"no store of ML Metadata below {runs}: create one with `vitpipe run`, or name another folder with --runs"
        )
    if pipeline is None and len(known) > 1:
        raise NotFound(f"several pipelines have a store: choose one with --pipeline {'|'.join(known)}")
    name = pipeline or next(iter(known))
    if name not in known:
        raise NotFound(f"--pipeline {name}: no such store; the stores are {', '.join(known)}")
    return known[name]

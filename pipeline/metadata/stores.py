"""Which stores there are, and in which of them a run is."""

import difflib
import os
from pathlib import Path

from pipeline.metadata.address import ADDRESS, Address
from pipeline.metadata.reader import reader
from pipeline.metadata.views import Run


class NotFound(Exception):
    """No such run, artifact or version; the message names the nearest ones."""


def server() -> Address | None:
    """The server that the environment names, for every command. Raises StoreError for what is no address."""
    address = os.environ.get(ADDRESS)
    return Address.parse(address) if address else None


def stores(runs: Path) -> dict[str, Address]:
    """The stores of the run folders below `runs`, by pipeline; where the environment names a server, that alone."""
    if away := server():
        return {away.database: away}
    return {file.parent.name: Address(file=file) for file in sorted(runs.glob("*/metadata.db"))}


def find_run(name: str, runs: Path) -> tuple[Address, Run]:
    """The run of that name, or `last` for the newest, and the store that knows it.

    Raises NotFound, naming the nearest runs, and StoreError for a store that cannot be read.
    """
    known: list[str] = []
    newest: tuple[Address, Run] | None = None
    for address in stores(runs).values():
        with reader(address) as store:
            if name == "last":
                for run in store.runs(limit=1):
                    if newest is None or run.started_ms > newest[1].started_ms:
                        newest = address, run
            elif found := store.run(name):
                return address, found
            else:
                known += store.run_names()
    if newest:
        return newest
    if not known:
        raise NotFound(f"no run below {runs}: `vitpipe run` makes one, or name another folder with --runs")
    nearest = difflib.get_close_matches(name, known, n=3) or sorted(known)[-3:]
    raise NotFound(f"no run {name} below {runs}; did you mean {', '.join(nearest)}?")


def store_of(pipeline: str | None, runs: Path) -> Address:
    """The store of one pipeline, which need not be named where there is one store only. Raises NotFound."""
    if away := server():
        return away  # one store of every pipeline
    found = stores(runs)
    if not found:
        raise NotFound(f"no store of ML Metadata below {runs}: `vitpipe run` makes one, or try another --runs")
    if pipeline is None and len(found) > 1:
        raise NotFound(f"several pipelines have a store: say which with --pipeline {'|'.join(found)}")
    name = pipeline or next(iter(found))
    if name not in found:
        raise NotFound(f"--pipeline {name}: no such store; there are {', '.join(found)}")
    return found[name]

"""Time of commands and of a run by the number of runs in the store of ML Metadata.

    python benchmarks/store.py FOLDER -c sample.yaml                     # 0, 670 and 6,670 copies, SQLite
    python benchmarks/store.py FOLDER -c sample.yaml --copies 100 --mariadb

FOLDER is a working folder in which `vitpipe run -c sample.yaml` has pushed a model. The records of its run, as TFX and
vitpipe wrote them, are copied in the store: each copy is a run of the same pipeline with its own executions, artifacts
and events. Then commands are timed, and another run, which finds its steps in the cache except for the last ones. The
times include the start of Python. CPU seconds are those of all processes of the command, without those of a server. At
the end, FOLDER is as it was.

With `--mariadb`, a server is also measured, which is started on this machine, and on which the run is repeated first.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import record

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
ROUNDS = 3
# Tables of ML Metadata, with the kind of record that each column with an id names.
TABLES = {
    "Execution": {"id": "Execution"},
    "Artifact": {"id": "Artifact"},
    "Context": {"id": "Context"},
    "ExecutionProperty": {"execution_id": "Execution"},
    "ArtifactProperty": {"artifact_id": "Artifact"},
    "ContextProperty": {"context_id": "Context"},
    "Event": {"id": "Event", "artifact_id": "Artifact", "execution_id": "Execution"},
    "EventPath": {"event_id": "Event"},
    "Association": {"id": "Association", "context_id": "Context", "execution_id": "Execution"},
    "Attribution": {"id": "Attribution", "context_id": "Context", "artifact_id": "Artifact"},
    "ParentContext": {"context_id": "Context", "parent_context_id": "Context"},
}
COMMANDS = {
    "`runs list`": ["runs", "list", "--runs", "runs"],
    "`lineage` of the newest model": ["lineage", "v1", "--runs", "runs"],
    "`gc --dry-run --keep 5`": ["gc", "--dry-run", "--keep", "5", "--runs", "runs"],
}


def copy_runs(store: Any, copies: int) -> int:
    """Copy the records of all runs in a store. Copies have the same pipeline, nodes and types. They have no files.

    Args:
        store: Cursor of the store: of SQLite, or of MariaDB with the SQL mode PIPES_AS_CONCAT.
        copies: Number of copies.

    Returns:
        Number of executions after that.
    """

    def value(query: str) -> int:
        store.execute(query)
        return int(store.fetchone()[0])

    ignore = "or ignore" if isinstance(store, sqlite3.Cursor) else "ignore"
    store.execute("create temporary table copies (number integer)")
    if copies:
        store.execute(f"insert into copies values {', '.join(f'({number})' for number in range(1, copies + 1))}")
    # The contexts of the pipeline and its nodes belong to all runs.
    store.execute(
        "create temporary table common as select Context.id from Context join Type on Type.id = Context.type_id "
        "where Type.name in ('pipeline', 'node')"
    )
    for table in TABLES:
        store.execute(f"create temporary table old_{table} as select * from {table}")
    kinds = [table for table, ids in TABLES.items() if ids.get("id") == table]
    most = {kind: value(f"select max(id) from {kind}") for kind in kinds}
    for table, ids in TABLES.items():
        store.execute(f"select * from {table} limit 0")
        values = []
        for column in [description[0] for description in store.description]:
            if kind := ids.get(column):
                moved = f"{column} + number * {most[kind]}"
                kept = f"case when {column} in (select id from common) then {column} else {moved} end"
                values.append(kept if kind == "Context" else moved)
            elif column in ("name", "uri") and table in ("Execution", "Artifact", "Context"):
                values.append(f"{column} || '-' || number")
            else:
                values.append(column)
        own = f"where {next(iter(ids))} not in (select id from common)" if table.startswith("Context") else ""
        store.execute(f"insert {ignore} into {table} select {', '.join(values)} from old_{table}, copies {own}")
    return value("select count(*) from Execution")


@contextmanager
def copies_in_sqlite(folder: Path, copies: int) -> Iterator[tuple[int, float]]:
    """Copy the runs in the SQLite file of a working folder, until the context ends.

    Yields:
        Numbers of executions and of bytes in the store.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # Artifacts have absolute paths, so the run uses the folder itself, which is put back.
        runs, copy = folder / "runs", Path(scratch, "runs")
        shutil.copytree(runs, copy)
        [database] = runs.glob("*/metadata.db")
        try:
            with sqlite3.connect(database) as store:
                executions = copy_runs(store.cursor(), copies)
            yield executions, database.stat().st_size
        finally:
            shutil.rmtree(runs)
            shutil.move(copy, runs)


@contextmanager
def copies_in_mariadb(folder: Path, config: str, copies: int) -> Iterator[tuple[int, float]]:
    """Run a pipeline on a new server, and copy the run there, until the context ends.

    Yields:
        Numbers of executions and of bytes in the store.
    """
    from pipeline.metadata.address import ADDRESS, PASSWORD
    from tests.helpers import mariadb

    runs, hidden = folder / "runs", folder / "runs-of-sqlite"
    server = mariadb.Server()
    try:
        os.environ |= {ADDRESS: server.database("store"), PASSWORD: mariadb.PASSWORD}
        runs.rename(hidden)
        times(["run", "-c", config], folder)
        name = os.environ[ADDRESS].rpartition("/")[2]
        with pymysql.connect(
            host="127.0.0.1", port=server.port, user="vitpipe", password=mariadb.PASSWORD.encode(), database=name
        ) as connection:
            store = connection.cursor()
            store.execute("set sql_mode = concat(@@sql_mode, ',PIPES_AS_CONCAT')")
            executions = copy_runs(store, copies)
            connection.commit()
            # Without this, the server plans its queries with the numbers of rows that it last counted.
            store.execute(f"analyze table {', '.join(TABLES)}")
            store.execute(
                f"select sum(data_length + index_length) from information_schema.tables where table_schema = '{name}'"
            )
            size = float(store.fetchone()[0])
        yield executions, size
    finally:
        if hidden.exists():
            shutil.rmtree(runs, ignore_errors=True)
            hidden.rename(runs)
        for name in ADDRESS, PASSWORD:
            os.environ.pop(name, None)
        server.remove()


def times(command: list[str], folder: Path) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that a command of vitpipe takes in a folder.

    Raises:
        RuntimeError: If it fails.
    """
    start, before = time.perf_counter(), os.times()
    line = [sys.executable, "-m", "vitpipe", *command]
    done = subprocess.run(line, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return seconds, sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="working folder with a run")
    parser.add_argument("-c", "--config", required=True, help="settings of the run, in the folder")
    parser.add_argument("--copies", type=int, nargs="+", default=[0, 670, 6_670])
    parser.add_argument("--mariadb", action="store_true", help="also measure a MariaDB server")
    args = parser.parse_args()
    columns = ["executions", "store", *COMMANDS, "`run`, from the cache", "size, MB"]
    rows = []
    for copies in args.copies:
        contexts = {"SQLite": copies_in_sqlite(args.folder, copies)}
        if args.mariadb:
            contexts["MariaDB"] = copies_in_mariadb(args.folder, args.config, copies)
        for store, context in contexts.items():
            with context as (executions, size):
                cells = [
                    "{:.1f} ({:.1f})".format(*min(times(words, args.folder) for _ in range(ROUNDS)))
                    for words in COMMANDS.values()
                ]
                cells.append("{:.0f} ({:.0f})".format(*times(["run", "-c", args.config], args.folder)))
            rows.append([f"{executions:,}", store, *cells, f"{size / 1e6:,.0f}"])
            print(f"| {' | '.join(rows[-1])} |", flush=True)
    for line in (columns, ["-"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |")
    record.write(
        "store",
        columns,
        rows,
        "Seconds (CPU seconds); the shortest of three for a command, one run.",
    )


if __name__ == "__main__":
    main()

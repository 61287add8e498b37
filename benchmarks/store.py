"""Time of commands and of a run by the number of runs in the store of ML Metadata.

    python benchmarks/store.py FOLDER -c sample.yaml         # 0, 670 and 6,670 copies
    python benchmarks/store.py FOLDER -c sample.yaml --copies 100

FOLDER is a working folder in which `vitpipe run -c sample.yaml` has pushed a model. The records of its run, as TFX and
vitpipe wrote them, are copied in the SQLite file: each copy is a run of the same pipeline with its own executions,
artifacts and events. Then commands are timed, and another run, which finds its steps in the cache except for the last
ones. The times include the start of Python. CPU seconds are those of all its processes. At the end, FOLDER is as it
was.

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
from pathlib import Path

import record

ROOT = Path(__file__).parents[1]
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


def copy_runs(database: Path, copies: int) -> int:
    """Copy the records of all runs in a store. Copies have the same pipeline, nodes and types. They have no files.

    Args:
        database: SQLite file of the store.
        copies: Number of copies.

    Returns:
        Number of executions after that.
    """
    with sqlite3.connect(database) as store:
        store.execute("create temp table copy (number integer)")
        store.executemany("insert into copy values (?)", [(number,) for number in range(1, copies + 1)])
        # The contexts of the pipeline and its nodes belong to all runs.
        store.execute(
            "create temp table shared as select Context.id from Context join Type on Type.id = Context.type_id "
            "where Type.name in ('pipeline', 'node')"
        )
        for table in TABLES:
            store.execute(f"create temp table old_{table} as select * from main.{table}")
        kinds = [table for table, ids in TABLES.items() if ids.get("id") == table]
        most = {kind: store.execute(f"select max(id) from {kind}").fetchone()[0] for kind in kinds}
        for table, ids in TABLES.items():
            columns = [row[1] for row in store.execute(f"pragma table_info({table})")]
            values = []
            for column in columns:
                if kind := ids.get(column):
                    moved = f"{column} + number * {most[kind]}"
                    shared = f"case when {column} in shared then {column} else {moved} end"
                    values.append(shared if kind == "Context" else moved)
                elif column in ("name", "uri") and table in ("Execution", "Artifact", "Context"):
                    values.append(f"{column} || '-' || number")
                else:
                    values.append(column)
            own = f"where {next(iter(ids))} not in shared" if table.startswith("Context") else ""
            store.execute(f"insert or ignore into {table} select {', '.join(values)} from old_{table}, copy {own}")
        return int(store.execute("select count(*) from Execution").fetchone()[0])


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
    args = parser.parse_args()
    columns = ["executions", *COMMANDS, "`run`, from the cache", "SQLite, MB"]
    rows = []
    for copies in args.copies:
        with tempfile.TemporaryDirectory() as scratch:
            # Artifacts have absolute paths, so the run uses the folder itself, which is put back.
            runs, copy = args.folder / "runs", Path(scratch, "runs")
            shutil.copytree(runs, copy)
            [database] = runs.glob("*/metadata.db")
            try:
                executions = copy_runs(database, copies)
                size = database.stat().st_size / 1e6
                cells = [
                    "{:.1f} ({:.1f})".format(*min(times(words, args.folder) for _ in range(ROUNDS)))
                    for words in COMMANDS.values()
                ]
                cells.append("{:.0f} ({:.0f})".format(*times(["run", "-c", args.config], args.folder)))
            finally:
                shutil.rmtree(runs)
                shutil.move(copy, runs)
        rows.append([f"{executions:,}", *cells, f"{size:,.0f}"])
        print(f"| {' | '.join(rows[-1])} |", flush=True)
    for line in (columns, ["-"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |")
    record.write("store", columns, rows, "Seconds (CPU seconds); the shortest of three for a command, one run.")


if __name__ == "__main__":
    main()

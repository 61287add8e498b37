"""Record of the measured figures: `benchmarks/results.jsonl`, from which `docs/benchmarks.md` is made.

Each line is one measurement: a table, with the date, the machine and the command that made it. A script adds its line
when the variable RECORD is set. A word other than 1 is added to the topic, for other data or another machine:

    RECORD=1 python benchmarks/input.py
    RECORD=cifar10 python benchmarks/monitor.py cifar10-cpu images    # topic "monitor cifar10"
"""

import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")


def write(
    topic: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "", machine: str = ""
) -> None:
    """Append one measurement to the record, if the variable RECORD is set.

    Args:
        topic: Section of the benchmarks page that shows the measurement.
        columns: Headings of the table, with the units.
        rows: Cells of the table, one sequence a row.
        note: Circumstances that the command does not show, as Markdown.
        machine: Description of the machine. Empty: that of this machine.
    """
    word = os.environ.get("RECORD")
    if not word:
        return
    measurement = {
        "topic": topic if word == "1" else f"{topic} {word}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine or this_machine(),
        "command": " ".join(["python", *sys.argv]),
        "note": note,
        "columns": list(columns),
        "rows": [[str(cell) for cell in row] for row in rows],
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(measurement, ensure_ascii=False) + "\n")


def this_machine() -> str:
    """Describe this machine: usable cores, model of the CPU, AVX-512, version of Python."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = next(line.partition(": ")[2] for line in cpu.splitlines() if line.startswith("model name"))
    vectors = "with" if "avx512f" in cpu else "without"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, {vectors} AVX-512, Python {platform.python_version()}"

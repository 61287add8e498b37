"""Time and memory of `vitpipe data prepare`, and the seconds until it shows progress.

    python benchmarks/prepare.py                       # the sample
    python benchmarks/prepare.py cifar10 images.tar.xz
    python benchmarks/prepare.py images photos

For a folder, the time of reading and checking its images alone, on all cores, is measured for comparison.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Thread

import psutil
import record

from components.data.ingest import manifest
from components.data.ingest.images import examine
from components.data.ingest.source import SPLITS

ROOT = Path(__file__).parents[1]


def main(kind: str = "sample", source: str = "") -> None:
    """Prepare data in a temporary folder, and print time and peak memory.

    Args:
        kind: Kind of source, an argument of `vitpipe data prepare`.
        source: Path of the source. Empty: the kind's default.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "vitpipe", "data", "prepare", kind, "--out", out]
        if source:
            command += ["--source", str(Path(source).resolve())]
        start = time.perf_counter()
        process = psutil.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        lines: list[float] = []
        reader = Thread(target=lambda: lines.extend(time.perf_counter() - start for _ in process.stderr))
        reader.start()
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        reader.join()
        if process.returncode:
            sys.exit(process.returncode)
        written = manifest.read(Path(out, "span-1"))
    images = sum(written.examples(split) for split in SPLITS)
    rows = [[kind, f"{seconds:.1f}", f"{images / seconds:,.0f}", f"{lines[0]:.1f} s", f"{peak / 2**20:.0f} MiB"]]
    if source and Path(source).is_dir():
        files = [path for path in Path(source).rglob("*") if path.is_file()]
        start = time.perf_counter()
        with ProcessPoolExecutor() as pool:
            list(pool.map(read_and_check, files, chunksize=250))
        seconds = time.perf_counter() - start
        rows.append(["only read and checked", f"{seconds:.1f}", f"{len(files) / seconds:,.0f}", "", ""])
    for row in rows:
        print(*row, sep="\t")
    columns = ["source", "seconds", "images/s", "first line of progress", "peak memory"]
    record.write("prepare", columns, rows, f"{images:,} images.")


def read_and_check(path: Path) -> None:
    """Read an image and check it as `data prepare` does."""
    examine(path.read_bytes())


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and its child processes; shared pages count more than once."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:  # a process ended between the two calls
        pass
    return total


if __name__ == "__main__":
    main(*sys.argv[1:])

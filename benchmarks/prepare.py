"""Time and memory of `vitpipe data prepare`.

    python benchmarks/prepare.py                       # the sample
    python benchmarks/prepare.py cifar10 images.tar.xz

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import sys
import tempfile
import time
from pathlib import Path

import psutil
import record

from components.data.ingest import manifest
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
        process = psutil.Popen(command, cwd=ROOT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(process.returncode)
        written = manifest.read(Path(out, "span-1"))
    images = sum(written.examples(split) for split in SPLITS)
    print(f"{images:,} images in {seconds:.1f} s: {images / seconds:,.0f} images/s, peak {peak / 2**20:.0f} MiB")
    row = [kind, f"{seconds:.1f}", f"{images / seconds:,.0f}", f"{peak / 2**20:.0f} MiB"]
    record.write("prepare", ["source", "seconds", "images/s", "peak memory"], [row], f"{images:,} images.")


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

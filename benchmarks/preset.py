"""Time of a whole run of a preset, node by node, and its peak memory and test accuracy.

    python benchmarks/preset.py                                    # the sample
    python benchmarks/preset.py cifar10-cpu data/cifar10

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

from components.errors import Exit
from pipeline.result.listing import read_run

ROOT = Path(__file__).parents[1]


def main(preset: str = "sample", data: str = "") -> None:
    """Run a preset in an empty folder, and print its time and peak memory. Exits with the exit code of the run.

    Args:
        preset: Name of the preset.
        data: Folder of the prepared data. Empty: the data of the preset's name are prepared first.
    """
    vitpipe = [sys.executable, "-m", "vitpipe"]
    with tempfile.TemporaryDirectory() as scratch:
        if not data:
            data = f"{scratch}/data"
            subprocess.run([*vitpipe, "data", "prepare", preset, "--out", data], cwd=ROOT, check=True)
        # The runs folder is empty, so that no step takes its result from the cache.
        command = [*vitpipe, "run", "-c", preset, "--data", str(Path(data).resolve()), "--set", f"runs={scratch}/runs"]
        start = time.perf_counter()
        exit_code = subprocess.run(command, cwd=ROOT).returncode
        seconds = time.perf_counter() - start
        if exit_code not in (Exit.OK, Exit.NOT_BLESSED):
            sys.exit(exit_code)
        result = read_run("last", Path(scratch, "runs"))
        rows = [[node.node, f"{node.seconds:.1f}"] for node in result.record.executions]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # Linux counts in KiB
    print(f"{preset}: exit {exit_code} after {seconds:.0f} s, peak memory {peak:.2f} GiB")
    rows += [
        ["**whole command**", f"{seconds:.1f}"],
        ["peak memory", f"{peak:.2f} GiB"],
        ["test accuracy", f"{result.accuracy:.4f}"],
    ]
    record.write(f"preset {preset}", ["node", "seconds"], rows, f"Exit code {exit_code}.")
    sys.exit(exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])

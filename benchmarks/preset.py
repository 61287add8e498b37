"""How long a whole run of a preset takes, node by node, the peak memory of its process, and what the gate measured.

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
    vitpipe = [sys.executable, "-m", "vitpipe"]
    with tempfile.TemporaryDirectory() as scratch:
        if not data:
            data = f"{scratch}/data"
            subprocess.run([*vitpipe, "data", "prepare", preset, "--out", data], cwd=ROOT, check=True)
        # Runs in an empty folder, so that nothing is found in a cache.
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

"""How long a whole run of a preset takes, node by node, the peak memory of its process, and what the gate measured.

    python benchmarks/preset.py                                    # the sample
    python benchmarks/preset.py cifar10-cpu data/cifar10

FIGURES
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(preset: str = "sample", data: str = "") -> None:
    vitpipe = [sys.executable, "-m", "pipeline.cli"]
    with tempfile.TemporaryDirectory() as scratch:
        if not data:
            data = f"{scratch}/data"
            subprocess.run([*vitpipe, "data", "prepare", preset, "--out", data], cwd=ROOT, check=True)
        # Runs in an empty folder, so that nothing is found in a cache.
        command = [*vitpipe, "run", "-c", preset, "--data", str(Path(data).resolve()), "--set", f"runs={scratch}/runs"]
        start = time.perf_counter()
        exit_code = subprocess.run(command, cwd=ROOT).returncode
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # Linux counts in KiB
    print(f"{preset}: exit {exit_code} after {seconds:.0f} s, peak memory {peak:.2f} GiB")
    sys.exit(exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])

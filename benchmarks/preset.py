"""How long a whole run of a preset takes, node by node, the peak memory of its process, and what the gate measured.

    python benchmarks/preset.py                                    # the sample
    python benchmarks/preset.py cifar10-cpu data/cifar10

On two cores of a shared machine (AMD EPYC without AVX-512, 66 GFLOP/s in float32), CPython 3.11, one run each;
cifar10-cpu on CIFAR-10 re-encoded as JPEG. Seconds by node, and for the whole command:

| node             | sample | cifar10-cpu |
| ---------------- | ------ | ----------- |
| ImportExampleGen |    4.1 |        13.6 |
| TestExampleGen   |    2.7 |         5.3 |
| ImportSchemaGen  |    0.0 |         0.0 |
| StatisticsGen    |    9.7 |        15.4 |
| ExampleValidator |    0.1 |         0.1 |
| Transform        |   16.3 |        37.8 |
| Trainer          |   80.4 |       978.1 |
| Evaluator        |   11.7 |        43.4 |
| Pusher           |    0.1 |         0.1 |
| whole            |  141.0 |      1109.2 |
| peak memory, GiB |   1.53 |        1.96 |
| test accuracy    | 0.9665 |      0.5918 |

Measured before ImageStatistics, DataGate and ServingCheck were part of a run, and not repeated on that machine since.
On two cores with AVX-512 `vitpipe run -c cifar10-cpu`, with the first two, took 214 s and 2.04 GiB: Trainer 166.5,
Transform 11.9, ImageStatistics 10.3, Evaluator 9.3 s; test accuracy 0.5788.

The Trainer of cifar10-cpu made 231 to 276 images/s; four times as many on the sample, where an image has 16 patches
instead of 64.
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

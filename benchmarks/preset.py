"""Time of a whole run of a preset, node by node, and its peak memory and test accuracy.

    python benchmarks/preset.py                                    # the sample
    python benchmarks/preset.py cifar10-cpu data/cifar10

One run each, CPython 3.11; cifar10-cpu on CIFAR-10 re-encoded as JPEG. The machine without AVX-512 has two cores of a
shared AMD EPYC (66 GFLOP/s in float32). Seconds of each node and of the whole command:

| node             | sample, without AVX-512 | cifar10-cpu, without AVX-512 | cifar10-cpu, two cores with AVX-512 |
| ---------------- | ----------------------- | ---------------------------- | ----------------------------------- |
| ImportExampleGen |                     4.1 |                         13.6 |                                 0.6 |
| TestExampleGen   |                     2.7 |                          5.3 |                                 0.1 |
| ImportSchemaGen  |                     0.0 |                          0.0 |                                 0.0 |
| StatisticsGen    |                     9.7 |                         15.4 |                                 3.5 |
| ImageStatistics  |                         |                              |                                10.4 |
| ExampleValidator |                     0.1 |                          0.1 |                                 0.0 |
| DataGate         |                         |                              |                                 0.9 |
| Transform        |                    16.3 |                         37.8 |                                11.0 |
| Trainer          |                    80.4 |                        978.1 |                               124.4 |
| Evaluator        |                    11.7 |                         43.4 |                                 8.1 |
| ServingCheck     |                         |                              |                                 6.5 |
| Pusher           |                     0.1 |                          0.1 |                                 0.0 |
| whole            |                   141.0 |                       1109.2 |                               178.1 |
| peak memory, GiB |                    1.53 |                         1.96 |                                2.04 |
| test accuracy    |                  0.9665 |                       0.5918 |                              0.5809 |

The first two columns were measured before ImageStatistics, DataGate and ServingCheck were part of a run, and have not
been repeated on that machine. An earlier run on two cores with AVX-512 took 214 s and 2.04 GiB (Trainer 166.5 s; test
accuracy 0.5788).

The Trainer of cifar10-cpu processed 231 to 276 images/s without AVX-512, and 1,784 to 2,271 images/s with it. On the
sample, whose images have 16 patches instead of 64, it processed four times as many without AVX-512.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # ru_maxrss is in KiB
    print(f"{preset}: exit {exit_code} after {seconds:.0f} s, peak memory {peak:.2f} GiB")
    sys.exit(exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])

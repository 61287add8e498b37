"""How long a whole run of a preset takes, node by node, the peak memory of its process, and what the gate measured.

    python benchmarks/preset.py                                    # the sample
    python benchmarks/preset.py cifar10-cpu data/cifar10

One run each, CPython 3.11; cifar10-cpu on CIFAR-10 re-encoded as JPEG. Two cores without AVX-512 are of a shared AMD
EPYC (66 GFLOP/s in float32). Seconds by node, and for the whole command:

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

The first two columns were measured before ImageStatistics, DataGate and ServingCheck were part of a run, and not
repeated on that machine since. An earlier run on two cores with AVX-512 took 214 s and 2.04 GiB (Trainer 166.5 s; test
accuracy 0.5788).

The Trainer of cifar10-cpu made 231 to 276 images/s without AVX-512, 1,784 to 2,271 with it; without, four times as
many on the sample, where an image has 16 patches instead of 64.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # Linux counts in KiB
    print(f"{preset}: exit {exit_code} after {seconds:.0f} s, peak memory {peak:.2f} GiB")
    sys.exit(exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])

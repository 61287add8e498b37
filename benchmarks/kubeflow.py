"""Time of each step of the graph if it runs as in a cluster, in its own process.

    python benchmarks/kubeflow.py                               # the sample
    python benchmarks/kubeflow.py cifar10-cpu data/cifar10

No cluster is involved. kfp's local runner executes the compiled package, and starts the command of each container on
this machine, one after the other, with a new MariaDB server. The times therefore exclude what a cluster adds:
scheduling of pods, pulling of images, and Kubeflow's own driver and launcher. "whole" is the time of the process, and
"node" that of TFX's launcher in it. The difference is the start of Python, TensorFlow, Beam and TFX.

`docs/benchmarks.md` has the figures.
"""

import re
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def main(preset: str = "sample", data: str = "") -> None:
    """Run a preset as steps of a cluster, and print the times of the steps.

    Args:
        preset: Name of the preset.
        data: Folder of the prepared data. Empty: that of the preset.
    """
    from kubeflow.compile import package
    from pipeline.metadata.address import PASSWORD
    from pipeline.settings import load
    from tests.helpers import mariadb
    from tests.helpers.walk import Processes, walk

    if reason := mariadb.missing():
        sys.exit(reason)
    server = mariadb.Server()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            flags = [
                "kubeflow.image=vitpipe:0",
                f"kubeflow.mount={scratch}",
                f"kubeflow.metadata={server.database('walk')}",
            ]
            settings = load(preset, flags, environment={})
            shutil.copytree(data or ROOT / settings.data.dir, Path(scratch, settings.data.dir))
            start = time.perf_counter()
            text = package(settings)
            compiled = time.perf_counter() - start
            start = time.perf_counter()
            done = walk(text, Path(scratch, "kfp"), Processes({PASSWORD: mariadb.PASSWORD}))
            walked = time.perf_counter() - start
        finally:
            server.remove()
    print(f"{preset}: compiled in {compiled:.1f} s, executed in {walked:.0f} s")
    for attempt in done.attempts:
        match = re.search(r"^\S+ +\w+ +([0-9.]+) s$", attempt.output, re.MULTILINE)
        node = f"node {match[1]:>6} s" if match else ""
        print(f"{attempt.name:<18} exit {attempt.code}  whole {attempt.seconds:6.1f} s  {node}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # ru_maxrss is in KiB
    print(f"peak memory of the largest step {peak:.2f} GiB")
    print(done.last("kubeflow.steps.verdict").output)


if __name__ == "__main__":
    main(*sys.argv[1:])

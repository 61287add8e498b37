"""What it costs to run the graph as steps of a cluster: each step of a compiled package as a process of its own.

    python benchmarks/kubeflow.py                               # the sample
    python benchmarks/kubeflow.py cifar10-cpu data/cifar10

There is no cluster: kfp's local runner walks the package and starts the command of each container here, one after the
other, on a MariaDB server of its own. So what a cluster adds (scheduling a pod, pulling an image, Kubeflow's own driver
and launcher) is not in it. "whole" is the process, "node" what TFX's launcher took in it; the difference is Python,
TensorFlow, Beam and TFX starting.

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
    from kubeflow.compile import package
    from pipeline.metadata.address import PASSWORD
    from pipeline.settings import load
    from tests.helpers import mariadb
    from tests.helpers.walk import walk

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
            done = walk(text, Path(scratch, "kfp"), {PASSWORD: mariadb.PASSWORD})
            walked = time.perf_counter() - start
        finally:
            server.remove()
    print(f"{preset}: compiled in {compiled:.1f} s, walked in {walked:.0f} s")
    for attempt in done.attempts:
        found = re.search(r"^\S+ +\w+ +([0-9.]+) s$", attempt.output, re.MULTILINE)
        own = f"node {found[1]:>6} s" if found else ""
        print(f"{attempt.name:<18} exit {attempt.code}  whole {attempt.seconds:6.1f} s  {own}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # Linux counts in KiB
    print(f"peak memory of the largest step {peak:.2f} GiB")
    print(done.last("kubeflow.steps.verdict").output)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How long the server takes for each page of `vitpipe ui`, without the network and the browser.

    python benchmarks/ui.py                    # the stores below runs/
    python benchmarks/ui.py --runs DIR --times 20

It asks for the newest run, the oldest artifact (from which most has come) and the newest one (which most has led to).
Every question opens the store anew. Medians of 20 in milliseconds, two cores; the stores of 30 and 1,000 runs are those
that `tests/stores.py` makes, with up to 5 nodes a run, and the third holds two runs of `cifar10-cpu` with 14:

| page                                   | 30 runs | 1,000 runs | cifar10-cpu |
| -------------------------------------- | ------- | ---------- | ----------- |
| runs, newest first                     |      13 |         11 |           6 |
| runs, a state that none has: reads all |      14 |        301 |           2 |
| a run                                  |       7 |          7 |          14 |
| artifacts                              |       6 |          6 |           4 |
| an artifact                            |       4 |          6 |           4 |
| lineage up                             |       7 |          8 |          11 |
| lineage down                           |       7 |          9 |          13 |
| charts                                 |      19 |         95 |           7 |

Other work kept both cores busy (a load of 6.5); with the cores free the slowest, the filter of 1,000 runs, took 120.
"""

import argparse
import statistics
import time
from pathlib import Path

from pipeline.metadata.reader import reader
from pipeline.metadata.stores import stores
from pipeline.ui.app import create_app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--times", type=int, default=20)
    arguments = parser.parse_args()
    client = create_app(arguments.runs).test_client()
    for path in ["/", "/?state=running", *pages(arguments.runs)]:
        seconds = []
        for _ in range(arguments.times):
            start = time.perf_counter()
            answer = client.get(path)
            seconds.append(time.perf_counter() - start)
            assert answer.status_code == 200, f"{path}: {answer.status}"
        print(f"{path:60} {statistics.median(seconds) * 1000:7.1f} ms  {len(answer.data) / 1024:6.0f} KiB")


def pages(runs: Path) -> list[str]:
    found = []
    for name, address in stores(runs).items():
        with reader(address) as store:
            [run], artifacts = store.runs(limit=1), store.artifacts()
        newest, oldest = artifacts[0].id, artifacts[-1].id
        found += [
            f"/{name}/runs/{run.name}", f"/{name}/artifacts", f"/{name}/artifacts/{oldest}",
            f"/{name}/artifacts/{newest}/up", f"/{name}/artifacts/{oldest}/down", f"/{name}/charts",
        ]  # fmt: skip
    return found


if __name__ == "__main__":
    main()

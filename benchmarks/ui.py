"""How long the server takes for each page of `vitpipe ui`, without the network and the browser.

    python benchmarks/ui.py                    # the stores below runs/
    python benchmarks/ui.py --runs DIR --times 20

It asks for the newest run, the oldest artifact (from which most has come) and the newest one (which most has led to).
Every question opens the store anew. Medians of 20 in milliseconds on two cores that other work kept busy (a load of 6).
The 30 runs are those that `tests/stores.py` makes, with up to 5 nodes each; cifar10-cpu has two true runs with 14; the
1,000 with 14 are those that `generate` of `benchmarks/metadata.py` writes:

| page                                   | 30 runs | cifar10-cpu | 1,000 runs |
| -------------------------------------- | ------- | ----------- | ---------- |
| runs, newest first                     |       8 |           6 |         23 |
| runs, a state that none has: reads all |       3 |           1 |        318 |
| a run                                  |       7 |          13 |          3 |
| artifacts                              |       2 |           6 |          2 |
| an artifact                            |       1 |           4 |          5 |
| lineage up                             |       6 |           8 |         26 |
| lineage down                           |       3 |           9 |         34 |
| charts, of 200 runs at most            |      15 |           7 |        228 |
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

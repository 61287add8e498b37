"""How long the server takes for each page of `vitpipe ui`, without the network and the browser.

    python benchmarks/ui.py                    # the stores below runs/
    python benchmarks/ui.py --runs DIR --times 20
    python benchmarks/ui.py --image FILE       # and an image, explained by the newest pushed model

It asks for the newest run, the oldest artifact (from which most has come) and the newest one (which most has led to).
Every question opens the store anew. Medians of 20 in milliseconds on two cores that other work kept busy (a load of 6).
The 30 runs are those that `tests/helpers/stores.py` makes, with up to 5 nodes each; cifar10-cpu has two true runs with
14; the 1,000 with 14 are those that `generate` of `benchmarks/metadata.py` writes:

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

An image of CIFAR-10 explained by the pushed cifar10-cpu model, on two cores with a load below 1: the first 5.1 s, as it
starts the process and loads the model, later ones 0.09 s. A JPEG of 4096x4096 pixels and 8.6 MiB: 5.6 s and 0.36 s.
"""

import argparse
import statistics
import time
from pathlib import Path

from flask.testing import FlaskClient

from pipeline.metadata.reader import reader
from pipeline.metadata.stores import stores
from vitpipe.ui.app import create_app
from vitpipe.ui.safety import IMAGE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--image", type=Path)
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
    if arguments.image:
        seconds = [explained(client, arguments.image.read_bytes()) for _ in range(1 + arguments.times)]
        print(f"first image {seconds[0]:.2f} s, later ones {statistics.median(seconds[1:]):.2f} s")


def explained(client: FlaskClient, image: bytes) -> float:
    """Seconds until an image is answered."""
    start = time.perf_counter()
    answer = client.post("/-/explain", data=image, headers={"Origin": "http://localhost", "Content-Type": IMAGE})
    assert answer.status_code == 201, answer.text
    return time.perf_counter() - start


def pages(runs: Path) -> list[str]:
    found = []
    for name, address in stores(runs).items():
        with reader(address) as store:
            [run], artifacts = store.runs(limit=1), store.artifacts()
        newest, oldest = artifacts[0].id, artifacts[-1].id
        found += [
            f"/{name}/runs/{run.name}",
            f"/{name}/artifacts",
            f"/{name}/artifacts/{oldest}",
            f"/{name}/artifacts/{newest}/up",
            f"/{name}/artifacts/{oldest}/down",
            f"/{name}/charts",
        ]
    return found


if __name__ == "__main__":
    main()

"""Time that the server of `vitpipe ui` takes for each page, without the network and the browser.

    python benchmarks/ui.py                    # the stores below runs/
    python benchmarks/ui.py --runs DIR --times 20
    python benchmarks/ui.py --image FILE       # also the explanation of an image by the newest pushed model

The script requests the newest run, the oldest artifact (with the most descendants) and the newest artifact (with the
most ancestors). Every request opens the store again. The table has medians of 20 requests in milliseconds, on two cores
that were busy with other work (a load of 6). The 30 runs, of up to 5 nodes each, are written by
`tests/helpers/stores.py`. cifar10-cpu has two real runs of 14 nodes. The 1,000 runs, of 14 nodes each, are written by
`generate` of `benchmarks/metadata.py`:

| page                                   | 30 runs | cifar10-cpu | 1,000 runs |
| -------------------------------------- | ------- | ----------- | ---------- |
| runs, newest first                     |       8 |           6 |         23 |
| runs in a state without runs           |       3 |           1 |        318 |
| a run                                  |       7 |          13 |          3 |
| artifacts                              |       2 |           6 |          2 |
| an artifact                            |       1 |           4 |          5 |
| lineage up                             |       6 |           8 |         26 |
| lineage down                           |       3 |           9 |         34 |
| charts, of at most 200 runs            |      15 |           7 |        228 |

To list the runs in a state that no run has, the server reads all runs.

Explaining an image of CIFAR-10 with the pushed model of cifar10-cpu, on two cores with a load below 1, takes 5.1 s for
the first image, which starts the process and loads the model, and 0.09 s for later images. A JPEG of 4096x4096 pixels
and 8.6 MiB takes 5.6 s and 0.36 s.
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
    """Measure all pages and print their times and sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder with the run folders of pipelines")
    parser.add_argument("--times", type=int, default=20, help="number of requests of each page")
    parser.add_argument("--image", type=Path, help="image to explain")
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
        seconds = [time_explanation(client, arguments.image.read_bytes()) for _ in range(1 + arguments.times)]
        print(f"first image {seconds[0]:.2f} s, later images {statistics.median(seconds[1:]):.2f} s")


def time_explanation(client: FlaskClient, image: bytes) -> float:
    """Request the explanation of an image.

    Args:
        client: Client of the server.
        image: The encoded image.

    Returns:
        Seconds until the answer.
    """
    start = time.perf_counter()
    answer = client.post("/-/explain", data=image, headers={"Origin": "http://localhost", "Content-Type": IMAGE})
    assert answer.status_code == 201, answer.text
    return time.perf_counter() - start


def pages(runs: Path) -> list[str]:
    """Return the paths of the pages to request, for each store."""
    paths = []
    for name, address in stores(runs).items():
        with reader(address) as store:
            [run], artifacts = store.runs(limit=1), store.artifacts()
        newest, oldest = artifacts[0].id, artifacts[-1].id
        paths += [
            f"/{name}/runs/{run.name}",
            f"/{name}/artifacts",
            f"/{name}/artifacts/{oldest}",
            f"/{name}/artifacts/{newest}/up",
            f"/{name}/artifacts/{oldest}/down",
            f"/{name}/charts",
        ]
    return paths


if __name__ == "__main__":
    main()

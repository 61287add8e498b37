"""Time that the server of `vitpipe ui` takes for each page, without the network and the browser.

    python benchmarks/ui.py                    # the stores below runs/
    python benchmarks/ui.py --runs DIR --times 20
    python benchmarks/ui.py --image FILE       # also the explanation of an image by the newest pushed model

The script requests the newest run, the oldest artifact (with the most descendants) and the newest artifact (with the
most ancestors). Every request opens the store again. The figures are medians of 20 requests. The 30 runs of the
published figures, of up to 5 nodes each, are written by `tests/helpers/stores.py`. cifar10-cpu has two real runs of 14
nodes. The 1,000 runs, of 14 nodes each, are written by `generate` of `benchmarks/metadata.py`.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import argparse
import statistics
import time
from pathlib import Path

import record
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
    rows = []
    for path in ["/", "/?state=running", *pages(arguments.runs)]:
        seconds = []
        for _ in range(arguments.times):
            start = time.perf_counter()
            answer = client.get(path)
            seconds.append(time.perf_counter() - start)
            assert answer.status_code == 200, f"{path}: {answer.status}"
        print(f"{path:60} {statistics.median(seconds) * 1000:7.1f} ms  {len(answer.data) / 1024:6.0f} KiB")
        rows.append([f"`{path}`", f"{statistics.median(seconds) * 1000:.1f}"])
    if arguments.image:
        seconds = [time_explanation(client, arguments.image.read_bytes()) for _ in range(1 + arguments.times)]
        print(f"first image {seconds[0]:.2f} s, later ones {statistics.median(seconds[1:]):.2f} s")
        rows.append(["first image", f"{seconds[0] * 1000:.0f}"])
        rows.append(["a later image", f"{statistics.median(seconds[1:]) * 1000:.0f}"])
    record.write("ui", ["page", "milliseconds, median"], rows)


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

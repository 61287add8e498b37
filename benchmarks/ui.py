"""How long the server takes for each page of `vitpipe ui`, without the network and the browser.

    python benchmarks/ui.py                    # the stores below runs/
    python benchmarks/ui.py --runs DIR --times 20
    python benchmarks/ui.py --image FILE       # and an image, explained by the newest pushed model

It asks for the newest run, the oldest artifact (from which most has come) and the newest one (which most has led to).
Every question opens the store anew. Medians of 20 in milliseconds. The 30 runs of the published figures are those
that `tests/helpers/stores.py` makes, with up to 5 nodes each; cifar10-cpu has two true runs with 14; the 1,000 with 14
are those that `generate` of `benchmarks/metadata.py` writes.

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--image", type=Path)
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
        seconds = [explained(client, arguments.image.read_bytes()) for _ in range(1 + arguments.times)]
        print(f"first image {seconds[0]:.2f} s, later ones {statistics.median(seconds[1:]):.2f} s")
        rows.append(["first image", f"{seconds[0] * 1000:.0f}"])
        rows.append(["a later image", f"{statistics.median(seconds[1:]) * 1000:.0f}"])
    record.write("ui", ["page", "milliseconds, median"], rows)


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

"""Take the pictures of the documentation: pages of a run of the sample, in a light and a dark colour scheme.

    make pictures                     # runs the sample in a temporary folder first, which takes a few minutes
    python docs/pictures.py FOLDER    # uses the newest pushed run of the sample in FOLDER

The pictures are written to docs/pictures/<page>-<scheme>.png. The sample consists of scikit-learn's handwritten digits,
so nothing is downloaded. Chromium must be on the PATH.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from components.data.ingest import tfrecord
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Run
from pipeline.metadata.stores import stores
from pipeline.result.run_result import RunResult
from vitpipe.ui.app import create_app
from vitpipe.ui.server import create_server

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT = 1280, 1000  # size of the window, in pixels
COLOURS = 256  # size of a picture's palette
MOST_BYTES = 1_000_000  # largest size of all pictures together


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder that has data/sample and runs/sample")
    chosen = parser.parse_args().folder
    if chosen:
        take_pictures(chosen.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="vitpipe-") as folder:
        run_sample(Path(folder))
        take_pictures(Path(folder))


def run_sample(folder: Path) -> None:
    """Run the sample in a folder until its model is pushed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in ("data prepare sample --out data/sample", "run -c sample"):
        line = [sys.executable, "-m", "vitpipe", *arguments.split()]
        subprocess.run(line, cwd=folder, env=environment, check=True)


def take_pictures(folder: Path) -> None:
    """Write the pictures of the newest pushed run in a folder."""
    os.chdir(folder)  # paths on the pages are relative to it
    run = newest_pushed_run()
    pushed, verdict = run.output("Pusher", "pushed_model"), run.output("DataGate", "verdict")
    report = RunResult(run).report
    assert pushed and verdict and report, "a pushed run has these artifacts"
    with served() as address, sync_playwright() as playwright, tempfile.TemporaryDirectory() as temporary:
        digit = Path(temporary, "digit.png")
        digit.write_bytes(next(tfrecord.read_split(Path("data/sample/span-1/test"))).image)
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            context = browser.new_context(
                base_url=address, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme
            )
            page = context.new_page()

            page.goto(report.resolve().as_uri())
            page.locator(".js-plotly-plot .main-svg").first.wait_for()
            page.evaluate("for (const details of document.querySelectorAll('details')) details.open = false")
            take(page, f"report-{scheme}", end="#gate")

            page.goto(Path(verdict.uri, "data.html").as_uri())
            page.locator(".js-plotly-plot .main-svg").first.wait_for()
            take(page, f"data-{scheme}", most=1100)

            page.goto(f"/sample/runs/{run.name}")
            take(page, f"run-{scheme}", end="#nodes")

            page.goto(f"/sample/artifacts/{pushed.id}/up")
            take(page, f"lineage-{scheme}")

            page.goto("/-/explain")
            page.locator("input[type=file]").set_input_files(digit)
            page.locator("#answer").wait_for(timeout=120_000)
            page.frame_locator("#answer").get_by_text("rollout").first.wait_for()
            page.wait_for_timeout(2000)  # a frame of another origin is painted later than its page
            take(page, f"explain-{scheme}", most=HEIGHT)
            context.close()
        browser.close()
    size = sum(file.stat().st_size for file in PICTURES.glob("*.png"))
    print(f"{size:,} bytes in {PICTURES}")
    if size > MOST_BYTES:
        sys.exit(f"The pictures have {size:,} bytes, more than {MOST_BYTES:,}. Take smaller parts of the pages.")


def newest_pushed_run() -> Run:
    """Return the newest run of the sample that pushed a model."""
    with reader(stores(Path("runs"))["sample"]) as store:
        return next(run for run in store.runs() if RunResult(run).pushed)


@contextmanager
def served() -> Iterator[str]:
    """Serve the pages of `vitpipe ui` on a free port, and yield their address."""
    server = create_server(create_app(Path("runs")), "127.0.0.1", 0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"


def chromium() -> str:
    """Return the path of Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if path := next(filter(None, map(shutil.which, names)), None):
        return path
    sys.exit(f"Chromium is not on the PATH (tried {', '.join(names)}). On Debian: apt install chromium.")


def take(page: Page, name: str, begin: str = "body", end: str = "", most: int = 4000) -> None:
    """Write a part of a page as a picture.

    Args:
        page: The page, loaded.
        name: Name of the picture.
        begin: Selector of the first element on the picture.
        end: Selector of the first element below the picture; empty for the end of the page.
        most: Largest height of the picture, in pixels.
    """
    page.wait_for_timeout(500)  # charts are drawn and images decoded
    page.evaluate("scrollTo(0, 0)")
    top = page.locator(begin).first.bounding_box()
    bottom = page.locator(end).first.bounding_box() if end else None
    whole = page.evaluate("document.documentElement.scrollHeight")
    start = max(0, top["y"] - 16) if top else 0
    height = min((bottom["y"] if bottom else whole) - start, most)
    # A picture of more than the window resizes it, and frames of another origin may be painted too late for that.
    more = start + height > HEIGHT
    taken = page.screenshot(full_page=more, clip={"x": 0, "y": start, "width": WIDTH, "height": height})
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

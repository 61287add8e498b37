"""Alerts of `vitpipe monitor` on unchanged, darker and new traffic, with a pushed model.

    python benchmarks/monitor.py NAME IMAGES [RUNS]

NAME is a pipeline with a pushed model below the folder RUNS (default: runs). IMAGES is a folder with `test/CLASS/*`,
images of the model's classes that it was not trained on, and `new/CLASS/*`, images of other classes. Each image is
answered once by the newest pushed model. A window is a random draw of these answers, with replacement.

- unchanged: 50 windows of test images, of each size;
- darker: 5 windows in which every pixel of the test images has the given part of its brightness;
- new classes: 5 windows in which the given part of the images is of other classes.

A log with the images of each kind of traffic is written to a temporary folder. With RECORD=1 the table is added to
`docs/benchmarks.md`.
"""

import base64
import io
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import record
import tensorflow as tf
from PIL import Image

import vitpipe
from components.model.serving_folder import versions

_BATCH = 256
_SIZES = (100, 300)  # answers in a window
_MOST = 4000  # images of each kind that are answered


def main(name: str, images: str, runs: str = "runs") -> None:
    """Measure and print the table.

    Args:
        name: Name of the pipeline.
        images: Folder with the folders `test` and `new`.
        runs: Folder of the run folders.
    """
    serving = Path(runs, name, "serving")
    signature = (model := tf.saved_model.load(str(serving / str(versions(serving)[-1])))).signatures["serving_bytes"]
    draw = np.random.default_rng(0)

    def read(split: str) -> list[tuple[bytes, str]]:
        files = sorted(Path(images, split).glob("*/*"))
        chosen = draw.permutation(len(files))[:_MOST].tolist()
        return [(files[place].read_bytes(), files[place].parent.name) for place in chosen]

    def lines(labelled: list[tuple[bytes, str]]) -> list[str]:
        rows = []
        for start in range(0, len(labelled), _BATCH):
            batch = labelled[start : start + _BATCH]
            answers = (
                signature(image_bytes=tf.constant([image for image, _ in batch]))["probabilities"].numpy().tolist()
            )
            rows += [
                json.dumps({"image_bytes": base64.b64encode(image).decode(), "probabilities": answer, "label": label})
                for (image, label), answer in zip(batch, answers, strict=True)
            ]
        return rows

    test, new = read("test"), read("new")
    unchanged = lines(test)
    others = lines(new)
    rows: list[list[object]] = []

    def measure(kind: str, pool: list[str], size: int, windows: int, mixed: float = 0.0) -> None:
        count = size * windows
        picks = [pool[at] for at in draw.integers(0, len(pool), count).tolist()]
        for place in np.flatnonzero(draw.uniform(size=count) < mixed).tolist():
            picks[place] = others[int(draw.integers(len(others)))]
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "traffic.jsonl")
            log.write_text("\n".join(picks) + "\n")
            begin = time.process_time()
            report = vitpipe.monitor(name, log, window=str(size), runs=Path(runs))
            seconds = time.process_time() - begin
        alerts = Counter(alert.check for window in report.windows for alert in window.alerts)
        found = ", ".join(f"{check} {number}" for check, number in alerts.most_common()) or "none"
        alerting = sum(bool(window.alerts) for window in report.windows)
        warning = sum(bool(window.warnings) for window in report.windows)
        expected = np.mean([window.expected_accuracy for window in report.windows])
        accuracy = np.mean([window.accuracy for window in report.windows])
        cells = [kind, size, len(report.windows), alerting, warning, found, f"{expected:.3f}", f"{accuracy:.3f}"]
        rows.append([*cells, f"{1000 * seconds / count:.2f}"])
        print(*rows[-1], sep=" | ", flush=True)

    for size in _SIZES:
        measure("unchanged", unchanged, size, 50)
    for part in (0.8, 0.6, 0.4):
        darker = lines([(_darken(image, part), label) for image, label in test[:1500]])
        for size in _SIZES:
            measure(f"darker, {part:g} of the brightness", darker, size, 5)
    for part in (0.1, 0.3, 1.0):
        for size in _SIZES:
            measure(f"new classes, {part:g} of the images", unchanged, size, 5, part)
    columns = ["traffic", "answers in a window", "windows", "with an alert", "with a warning", "alerts"]
    record.write("monitor", [*columns, "expected accuracy", "accuracy", "CPU ms for each answer"], rows)
    del model  # the signature does not keep the weights


def _darken(image: bytes, part: float) -> bytes:
    """Return a darker image in the same format, so that only the brightness differs."""
    opened = Image.open(io.BytesIO(image))
    pixels = np.asarray(opened.convert("RGB")) * part
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, opened.format, quality=95)
    return out.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])

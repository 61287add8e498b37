"""Latency, throughput and memory of an exported model, and the time from a trained model to a pushed one.

    python benchmarks/serving.py                                  # latency and throughput of two presets' models
    python benchmarks/serving.py memory [PREDICTIONS]             # memory of a process; 100,000 requests by default
    python benchmarks/serving.py push runs/cifar10-cpu [IMAGES]   # time to push; 10,000 test images by default

The models have random weights, because their computation is the same as that of trained models. Images are JPEG of
32x32 pixels. "bare" calls the model, compiled as a graph, with decoded arrays. "served" passes JPEG bytes to
`serving_bytes`, and so includes decoding.

`push` compares the time from a trained model to a pushed one with a bound: 20 s, and 1.5 times the bare inference of
every evaluated model on the test images. Here "bare" calls `serving_images`, compiled as a graph, with decoded arrays
in batches of 256; compilation is not timed.

`docs/benchmarks.md` has the figures.
"""

import io
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import psutil
import tensorflow as tf
from PIL import Image

from components.model.serving_folder import read_record, versions
from pipeline.settings import load
from trainer import serving
from trainer.vit import ViT

REQUESTS, ROUNDS, BATCH = 500, 5, 32


def build_model(preset: str) -> ViT:
    """Build the model of a preset, with random weights."""
    settings = load(preset, environment={}).model
    return ViT(**settings.model_dump(exclude={"size"}), classes=10)


def random_jpegs(count: int) -> list[bytes]:
    """Make random JPEG images of 32x32 pixels."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(count):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8")).resize((32, 32))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    return jpegs


def speed(preset: str) -> None:
    """Measure and print latency and throughput of a preset's model."""
    model = build_model(preset)
    with tempfile.TemporaryDirectory() as folder:
        serving.export(model, list("abcdefghij"), folder)
        loaded = tf.saved_model.load(folder)
        served = loaded.signatures["serving_bytes"]
        rows = random_jpegs(BATCH)
        images = tf.constant(np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), "uint8"))
        bare = tf.function(lambda images: model(images, training=False))
        batch = tf.constant(rows)
        for _ in range(20):
            bare(images), served(image_bytes=batch), served(image_bytes=batch[:1])

        milliseconds = []
        for number in range(REQUESTS):
            request = tf.constant([rows[number % BATCH]])
            start = time.perf_counter()
            served(image_bytes=request)["probabilities"].numpy()
            milliseconds.append(1000 * (time.perf_counter() - start))
        calls = max(10, REQUESTS // BATCH)
        rates: dict[str, list[float]] = {"bare": [], "served": []}
        for _ in range(ROUNDS):  # the two alternate, so that changes of the machine's load affect both
            for name, call in ("bare", lambda: bare(images)), ("served", lambda: served(image_bytes=batch)):
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                rates[name].append(calls * BATCH / (time.perf_counter() - start))
    p50, p99 = np.percentile(milliseconds, [50, 99])
    ratio = np.median(np.divide(rates["served"], rates["bare"]))
    print(
        f"{preset}: batch 1 p50 {p50:.1f} ms, p99 {p99:.1f} ms; batch {BATCH} {np.median(rates['served']):,.0f} "
        f"images/s served, {np.median(rates['bare']):,.0f} bare, ratio {ratio:.2f}"
    )


def memory(predictions: int) -> None:
    """Print the memory of this process while it answers a number of requests."""
    model = build_model("cifar10-cpu")
    with tempfile.TemporaryDirectory() as folder:
        serving.export(model, list("abcdefghij"), folder)
        loaded = tf.saved_model.load(folder)
        served = loaded.signatures["serving_bytes"]
        rows = random_jpegs(BATCH)
        for done in range(predictions + 1):
            if done % (predictions // 5) == 0:
                print(f"{done:,} predictions: {psutil.Process().memory_info().rss / 2**20:.0f} MiB", flush=True)
            served(image_bytes=tf.constant([rows[done % BATCH]]))


def push(run_folder: str, count: int) -> None:
    """Print the time from training to push of the newest version, and its bound.

    The newest version must have been pushed by its own run. If a person blessed or restored it, the time would include
    the wait for that person.

    Args:
        run_folder: Run folder of the pipeline.
        count: Number of test images of the run.
    """
    serving_folder = Path(run_folder, "serving")
    evaluated = versions(serving_folder)[-2:]  # the pushed model, and the model that served before it
    record = read_record(serving_folder / str(evaluated[-1]))
    seconds = record.pushed_at.timestamp() - record.model.created_ms / 1000
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), "uint8")
    batches = [tf.constant(images[start : start + 256]) for start in range(0, count, 256)]
    models = [tf.saved_model.load(str(serving_folder / str(version))) for version in evaluated]
    calls = [tf.function(model.signatures["serving_images"]) for model in models]
    bare = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        for call in calls:
            for batch in batches:
                call(images=batch)["probabilities"].numpy()
        bare.append(time.perf_counter() - start)
    bare_median = np.median(bare[1:])  # the first round compiles
    bound = 1.5 * bare_median + 20
    print(
        f"version {evaluated[-1]}: trained to pushed {seconds:.1f} s; {len(models)} models bare on {count:,} images "
        f"{bare_median:.1f} s ({min(bare[1:]):.1f} to {max(bare[1:]):.1f}); bound {bound:.1f} s, "
        f"ratio {seconds / bound:.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory(int((sys.argv[2:] or ["100000"])[0]))
    elif sys.argv[1:2] == ["push"]:
        push(sys.argv[2], int((sys.argv[3:] or ["10000"])[0]))
    else:
        for preset in ("cifar10", "cifar10-cpu"):
            speed(preset)

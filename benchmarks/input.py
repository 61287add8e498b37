"""Images per second that the host can prepare for training steps, with their random numbers, as a dataset.

    python benchmarks/input.py

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import os
import time
from collections.abc import Iterator
from statistics import median

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import record

from trainer.augment import draws_per_image
from trainer.input import Share, Split, dataset, training_batches
from trainer.settings import AugmentSettings

IMAGES, SECONDS, ROUNDS = 50_000, 3.0, 5


def main() -> None:
    """Measure several batch sizes and print the rates."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    split = Split(images, generator.integers(0, 10, IMAGES))
    draws = draws_per_image(AugmentSettings())
    share = Share(first=0, replicas=1, parts=1)
    rows = []
    for batch_size in (64, 256, 512):

        def generate(size: int = batch_size) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
            return training_batches(split, size, draws, seed=0, first_epoch=0, share=share)

        batches = iter(dataset(generate, split, batch_size, draws))
        for _ in range(10):
            next(batches)
        rates = []
        for _ in range(ROUNDS):
            started, taken = time.perf_counter(), 0
            while time.perf_counter() - started < SECONDS:
                next(batches)
                taken += batch_size
            rates.append(taken / (time.perf_counter() - started))
        print(f"batches of {batch_size}: {median(rates):,.0f} images/s (from {min(rates):,.0f} to {max(rates):,.0f})")
        rows.append([batch_size, *(f"{figure(rates):,.0f}" for figure in (median, min, max))])
    record.write("input", ["batch", "images/s, median", "least", "most"], rows, "Images of 32x32 pixels.")


if __name__ == "__main__":
    main()

"""Accuracy on CIFAR-10's test set after a fixed time of training, for this project's recipe and the article's.

    python benchmarks/budget.py data/cifar10 --minutes 15 --seeds 3

Both recipes ("ours" is this project's) train a ViT of the same size, each in its own process, one after the other. A
short training first measures how many steps fit into the time. The whole schedule, warmup and cosine, is then scaled
to that number of steps. The time excludes compilation and this measurement. This project's recipe holds out `val`,
selects its weights by it, and evaluates them on the test set once. The article has no validation split: it trains on
all 50,000 images, and its last weights are tested. Selecting them by the test set would bias the result.

`docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from trainer.history import Row
    from trainer.input import Split
    from trainer.vit import ViT

    Data = dict[str, tuple[np.ndarray, np.ndarray]]  # images uint8 [N, 32, 32, 3] and labels int64 [N], by split

ROOT = Path(__file__).parent.parent
WARMUP_SECONDS = 20.0  # of the training that measures how many steps fit


def ours(data: Data, size: dict[str, int], minutes: float, seed: int) -> dict[str, float]:
    """Train with this project's trainer and the preset `cifar10-cpu`, for as many whole epochs as fit into the time.

    Args:
        data: The splits "train", "val" and "test".
        size: `depth`, `width` and `heads` of the model.
        minutes: Time for the training.
        seed: Seed of the training.

    Returns:
        `test_accuracy`, `steps`, `images_per_second` and `seconds`.
    """
    import logging
    import tempfile
    from functools import partial

    import numpy as np
    import yaml

    from trainer.checkpoint import Checkpoints
    from trainer.input import Split
    from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
    from trainer.train import build_vit, train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    preset = yaml.safe_load((ROOT / "configs" / "cifar10-cpu.yaml").read_text())
    train_split, val_split = (Split(*data[split]) for split in ("train", "val"))
    classes, flat = int(train_split.labels.max()) + 1, train_split.images.reshape(-1, 3)

    def fit(epochs: int, split: Split, folder: Path) -> tuple[ViT, list[Row]]:
        settings = {**preset["training"], "epochs": epochs, "seed": seed}
        # The warmup keeps the share of the steps that it has in the preset.
        settings["warmup_epochs"] = preset["training"]["warmup_epochs"] / preset["training"]["epochs"] * epochs
        model = ModelSettings(**{**preset["model"], **size})
        best, _, rows = train(
            partial(build_vit, model, classes, flat.mean(axis=0), flat.std(axis=0)),
            classes,
            AugmentSettings(**preset["augment"]),
            TrainingSettings(**settings),
            split,
            val_split,
            log_dir=folder / "log",
            checkpoints=Checkpoints(folder / "checkpoints" / "one"),
        )
        return best, rows

    with tempfile.TemporaryDirectory() as folder:
        few = Split(train_split.images[:3200], train_split.labels[:3200])
        _, rows = fit(2, few, Path(folder, "measured"))
        speed, seconds = (rows[1][key] for key in ("images_per_second", "seconds"))  # the first epoch compiles
        seconds_an_epoch = len(train_split) / speed + seconds - len(few) / speed
        epochs = max(1, int(minutes * 60 / seconds_an_epoch))
        model, rows = fit(epochs, train_split, Path(folder, "trained"))
    images, labels = data["test"]
    correct = [
        np.array(model(images[start : start + 500])).argmax(axis=1) == labels[start : start + 500]
        for start in range(0, len(labels), 500)
    ]
    return {
        "test_accuracy": float(np.mean(np.concatenate(correct))),
        "steps": epochs * (len(train_split) // preset["training"]["batch_size"]),
        "images_per_second": float(np.mean([row["images_per_second"] for row in rows])),
        "seconds": sum(row["seconds"] for row in rows),
    }


def article(data: Data, size: dict[str, int], minutes: float, seed: int) -> dict[str, float]:
    """Train with the article's recipe on train and val together, and test the last weights.

    Args:
        data: The splits "train", "val" and "test".
        size: `depth`, `width` and `heads` of the model.
        minutes: Time for the training.
        seed: Seed of the training.

    Returns:
        `test_accuracy`, `steps`, `images_per_second` and `seconds`.
    """
    import article
    import keras
    import numpy as np

    keras.utils.set_random_seed(seed)
    classes = int(data["train"][1].max()) + 1
    images, labels = (np.concatenate(both) for both in zip(data["train"], data["val"], strict=True))
    batches = article.training_batches(images, labels, classes).repeat()

    class Clock(keras.callbacks.Callback):
        """Callback that measures the time from the end of the first step, which compiles, and stops at a limit."""

        def __init__(self, limit: float = float("inf")) -> None:
            super().__init__()
            self.limit, self.steps = limit, -1

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            self.steps += 1
            if not self.steps:
                self.started = time.monotonic()
            self.seconds = time.monotonic() - self.started
            self.model.stop_training = self.seconds > self.limit

    def fit(steps: int, clock: Clock) -> keras.Model:
        model = article.vit(classes, images.shape[1], **size)
        article.compile_recipe(model, steps)
        model.fit(batches, steps_per_epoch=steps, callbacks=[clock], shuffle=False, verbose=0)
        return model

    warmup_clock = Clock(WARMUP_SECONDS)
    fit(1_000_000, warmup_clock)
    steps = max(2, int(minutes * 60 * warmup_clock.steps / warmup_clock.seconds))
    clock = Clock()
    model = fit(steps, clock)
    _, accuracy = model.evaluate(article.test_batches(*data["test"], classes), verbose=0)
    return {
        "test_accuracy": accuracy,
        "steps": steps,
        "images_per_second": clock.steps * article.BATCH_SIZE / clock.seconds,
        "seconds": clock.seconds,
    }


CONTENDERS = {"ours": ours, "article": article}


def main() -> None:
    """Train all contenders and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that `vitpipe data prepare cifar10` wrote")
    parser.add_argument("--minutes", type=float, default=15.0, help="time of each training")
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings of each recipe, with seeds 0, 1, ...")
    parser.add_argument("--depth", type=int, default=4, help="number of encoder blocks")
    parser.add_argument("--width", type=int, default=64, help="width of a token")
    parser.add_argument("--heads", type=int, default=4, help="number of attention heads of a block")
    parser.add_argument("--only", choices=CONTENDERS, help="train only this recipe")
    # The script starts itself with --train, to run each training in its own process.
    parser.add_argument("--train", nargs=2, metavar=("CONTENDER", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        name, seed = args.train
        size = {"depth": args.depth, "width": args.width, "heads": args.heads}
        data = {split: read(args.data / "span-1", split) for split in ("train", "val", "test")}
        print("result", json.dumps(CONTENDERS[name](data, size, args.minutes, int(seed))), flush=True)
        return
    results = {name: [] for name in CONTENDERS if args.only in (None, name)}
    print("| recipe  | seed | steps | images/s | seconds | test accuracy |")
    print("| ------- | ---- | ----- | -------- | ------- | ------------- |")
    for seed in range(args.seeds):  # the recipes alternate, so that changes of the machine's load affect both
        for name in results:
            result = train(name, seed)
            if not result:
                print(f"| {name:7} | {seed:4} |     - |        - |       - |             - |", flush=True)
                continue
            results[name].append(result["test_accuracy"])
            print(
                f"| {name:7} | {seed:4} | {result['steps']:5} | {result['images_per_second']:8.1f} "
                f"| {result['seconds']:7.1f} | {result['test_accuracy']:13.4f} |",
                flush=True,
            )
    for name, accuracies in results.items():
        if len(accuracies) > 1:
            error = stdev(accuracies) / len(accuracies) ** 0.5
            print(f"{name}: mean {mean(accuracies):.4f}, standard error {error:.4f}, {len(accuracies)} seeds")


def train(name: str, seed: int) -> dict[str, float]:
    """Train a contender in a new process.

    Args:
        name: Name of the contender.
        seed: Seed of the training.

    Returns:
        The contender's results; empty if it failed, in which case its error is on stderr.
    """
    process = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--train", name, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("result ")]
    return json.loads(lines[-1].removeprefix("result ")) if lines else {}


def read(span: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a prepared split.

    Args:
        span: Folder of the span.
        split: Name of the split.

    Returns:
        Images, uint8 [N, height, width, 3], and labels, int64 [N].
    """
    import numpy as np
    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        return tf.io.decode_image(example["image"], channels=3, expand_animations=False), example["label"]

    files = sorted(str(path) for path in (span / split).glob("*.tfrecord"))
    images, labels = zip(*tf.data.TFRecordDataset(files).map(parse).as_numpy_iterator(), strict=True)
    return np.stack(images), np.array(labels)


if __name__ == "__main__":
    main()

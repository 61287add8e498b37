"""Which recipe learns more in the same time: accuracy on CIFAR-10's test set after minutes of training.

    python benchmarks/budget.py data/cifar10 --minutes 15 --seeds 3

Ours and the article's train a ViT of the same size, each in a process of its own, one after the other. A short training
first measures how many steps fit into the time; then the whole schedule, warm-up and cosine, is stretched over that
many. Compiling and that measurement are not counted. Ours holds out `val`, chooses its weights by it and looks at the
test set once. The article has no split but train and test: it trains on all 50,000, and its last weights are tested,
because to choose by the test set would measure nothing.

`docs/benchmarks.md` has the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).parent.parent
WARMUP_SECONDS = 20.0  # of the measurement that tells how many steps fit


def ours(data: dict, size: dict, minutes: float, seed: int) -> dict:
    """The trainer's training, as the preset `cifar10-cpu` has it, in as many whole epochs as fit.

    data: images uint8 [N, 32, 32, 3] and labels int64 [N] of "train", "val" and "test"; size: depth, width and heads.
    Returns test_accuracy, steps, images_per_second and seconds, as `article` does.
    """
    import logging
    import tempfile
    from functools import partial

    import numpy as np
    import yaml

    from trainer.checkpoint import Checkpoints
    from trainer.input import Split
    from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
    from trainer.train import train, vit

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    preset = yaml.safe_load((ROOT / "configs" / "cifar10-cpu.yaml").read_text())
    train_split, val_split = (Split(*data[split]) for split in ("train", "val"))
    classes, flat = int(train_split.labels.max()) + 1, train_split.images.reshape(-1, 3)

    def fit(epochs, split, folder):
        settings = {**preset["training"], "epochs": epochs, "seed": seed}
        # The preset's share of the steps, whatever their number.
        settings["warmup_epochs"] = preset["training"]["warmup_epochs"] / preset["training"]["epochs"] * epochs
        model = ModelSettings(**{**preset["model"], **size})
        best, _, rows = train(
            partial(vit, model, classes, flat.mean(axis=0), flat.std(axis=0)),
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
        speed, seconds = (rows[1][key] for key in ("images_per_second", "seconds"))  # of the epoch without compiling
        an_epoch = len(train_split) / speed + seconds - len(few) / speed
        epochs = max(1, int(minutes * 60 / an_epoch))
        model, rows = fit(epochs, train_split, Path(folder, "trained"))
    images, labels = data["test"]
    right = [
        np.array(model(images[start : start + 500])).argmax(axis=1) == labels[start : start + 500]
        for start in range(0, len(labels), 500)
    ]
    return {
        "test_accuracy": float(np.mean(np.concatenate(right))),
        "steps": epochs * (len(train_split) // preset["training"]["batch_size"]),
        "images_per_second": float(np.mean([row["images_per_second"] for row in rows])),
        "seconds": sum(row["seconds"] for row in rows),
    }


def article(data: dict, size: dict, minutes: float, seed: int) -> dict:
    """The article's recipe on train and val together: the time it took, and the last weights' accuracy on test."""
    import article
    import keras
    import numpy as np

    keras.utils.set_random_seed(seed)
    classes = int(data["train"][1].max()) + 1
    images, labels = (np.concatenate(both) for both in zip(data["train"], data["val"], strict=True))
    batches = article.training_batches(images, labels, classes).repeat()

    class Clock(keras.callbacks.Callback):
        """Starts after the first step, which compiles; stops the training after `limit` seconds, if there is one."""

        def __init__(self, limit=float("inf")):
            super().__init__()
            self.limit, self.steps = limit, -1

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            if not self.steps:
                self.started = time.monotonic()
            self.seconds = time.monotonic() - self.started
            self.model.stop_training = self.seconds > self.limit

    def fit(steps, clock):
        model = article.vit(classes, images.shape[1], **size)
        article.compile_recipe(model, steps)
        model.fit(batches, steps_per_epoch=steps, callbacks=[clock], shuffle=False, verbose=0)
        return model

    measured = Clock(WARMUP_SECONDS)
    fit(1_000_000, measured)
    steps = max(2, int(minutes * 60 * measured.steps / measured.seconds))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder that `vitpipe data prepare cifar10` wrote")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each, with the seeds 0, 1, ...")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--only", choices=CONTENDERS)
    parser.add_argument("--train", nargs=2, metavar=("CONTENDER", "SEED"), help=argparse.SUPPRESS)  # in a process
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
    for seed in range(args.seeds):  # seeds outside: what changes on the machine meets both
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
            print(f"{name}: mean {mean(accuracies):.4f}, standard error {error:.4f}, of {len(accuracies)} seeds")


def train(name: str, seed: int) -> dict:
    """Trains a contender in a new process. Empty when it failed: it has said on stderr why."""
    process = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--train", name, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("result ")]
    return json.loads(lines[-1].removeprefix("result ")) if lines else {}


def read(span: Path, split: str):
    """Images uint8 [N, height, width, 3] and labels int64 [N] of a prepared split."""
    import numpy as np
    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def parse(record):
        example = tf.io.parse_single_example(record, features)
        return tf.io.decode_image(example["image"], channels=3, expand_animations=False), example["label"]

    files = sorted(str(path) for path in (span / split).glob("*.tfrecord"))
    images, labels = zip(*tf.data.TFRecordDataset(files).map(parse).as_numpy_iterator(), strict=True)
    return np.stack(images), np.array(labels)


if __name__ == "__main__":
    main()

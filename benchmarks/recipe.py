"""Accuracy on CIFAR-10's `val` of variants of a preset's recipe, for choosing between them.

    python benchmarks/recipe.py start data/cifar10 --seeds 3

Each variant is trained on `train` from each seed, in its own process and for the same number of epochs. The variants
alternate, so that changes of the machine's load affect all of them. The accuracy is that of the last epoch, not of the
best one, whose selection would bias the comparison. The test set is not read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import record
from budget import read

if TYPE_CHECKING:
    from trainer.vit import ViT


class Variant(NamedTuple):
    """Changes to a recipe."""

    settings: tuple[str, ...] = ()  # settings `a.b=c`
    deviations: Mapping[str, float] = MappingProxyType({})  # of initial weights, by the end of their path


# Deviations of initial weights are for tokens of width 64 and patches of 4x4 pixels. "Glorot" is sqrt(2 / (inputs +
# outputs)) of the matrix product. Keras counts the outputs of a convolution once for each pixel of a patch, and those
# of queries, keys and values together.
_PATCHES, _QKV = {"patches/kernel": 0.134}, {"qkv/kernel": 0.125}
_PLAIN = ("model.conv_stem=false", "model.mimetic=false", "training.optimizer=adamw")
_STEM = ("model.conv_stem=true",)
SWEEPS: dict[str, dict[str, Variant]] = {
    "start": {
        "plain": Variant(_PLAIN),
        "patches after Glorot": Variant(_PLAIN, _PATCHES),
        "patches, and each of q, k and v, after Glorot": Variant(_PLAIN, _PATCHES | _QKV),
        "patches after Glorot, positions and CLS 0.5": Variant(
            _PLAIN, _PATCHES | {"tokens/positions": 0.5, "tokens/cls": 0.5}
        ),
        "patches 0.2, positions and CLS 0.5": Variant(
            _PLAIN, {"patches/kernel": 0.2, "tokens/positions": 0.5, "tokens/cls": 0.5}
        ),
    },
    "precision": {
        "float32": Variant(("training.precision=float32",)),
        "bfloat16": Variant(("training.precision=bfloat16",)),
    },
    "switches": {
        "plain": Variant(_PLAIN),
        "pool mean": Variant((*_PLAIN, "model.pool=mean")),
        "conv stem": Variant((*_PLAIN, *_STEM)),
        "conv stem, mimetic": Variant((*_PLAIN, *_STEM, "model.mimetic=true")),
        "conv stem, Muon": Variant((*_PLAIN, *_STEM, "training.optimizer=muon")),
        "conv stem, mimetic, Muon": Variant((*_PLAIN, *_STEM, "model.mimetic=true", "training.optimizer=muon")),
        "conv stem, mimetic, Muon, 3e-3": Variant(
            (*_PLAIN, *_STEM, "model.mimetic=true", "training.optimizer=muon", "training.learning_rate=3e-3")
        ),
    },
}


def rescale(model: ViT, deviations: Mapping[str, float]) -> None:
    """Give initial weights other standard deviations. Weights of zeros become normal noise.

    Args:
        model: The new model.
        deviations: Standard deviations by the end of the weights' paths.

    Raises:
        ValueError: If no weight has such a path.
    """
    import keras
    import numpy as np

    for end, deviation in deviations.items():
        found = [weight for weight in model.weights if weight.path.endswith(end)]
        if not found:
            raise ValueError(f"no weight's path ends with {end}: correct the deviations of the variant")
        for weight in found:
            values = keras.ops.convert_to_numpy(weight)
            if not values.any():
                values = np.random.default_rng(0).standard_normal(values.shape)
            weight.assign(values * (deviation / values.std()))


def train(variant: Variant, preset: str, data: Path, epochs: int | None, seed: int) -> dict[str, float]:
    """Train a variant.

    Args:
        variant: The variant.
        preset: Name of the preset that it changes.
        data: Folder of the prepared data.
        epochs: Number of epochs, or None for those of the preset.
        seed: Seed of the training.

    Returns:
        Accuracy on val and loss on train in the last epoch, and the seconds of all epochs.
    """
    import logging

    from pipeline.settings import load
    from trainer.checkpoint import Checkpoints
    from trainer.input import Split
    from trainer.train import build_vit
    from trainer.train import train as train_vit

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    flags = [*variant.settings, f"training.seed={seed}", "training.require_gpu=false"]
    if epochs is not None:
        flags.append(f"training.epochs={epochs}")
    settings = load(preset, flags, {})
    train_split, val_split = (Split(*read(data / "span-1", split)) for split in ("train", "val"))
    classes, flat = int(train_split.labels.max()) + 1, train_split.images.reshape(-1, 3)

    def build(policy: str) -> ViT:
        model = build_vit(settings.model, classes, flat.mean(axis=0), flat.std(axis=0), policy)
        rescale(model, variant.deviations)
        return model

    with tempfile.TemporaryDirectory() as folder:
        rows = train_vit(
            build,
            classes,
            settings.augment,
            settings.training,
            train_split,
            val_split,
            log_dir=Path(folder, "log"),
            checkpoints=Checkpoints(Path(folder, "checkpoints", "one")),
        ).rows
    return {
        "val_accuracy": rows[-1]["val_accuracy"],
        "loss": rows[-1]["loss"],
        "seconds": sum(row["seconds"] for row in rows),
    }


def train_alone(variant: str, seed: int) -> dict[str, float]:
    """Train a variant in a new process, and return its result.

    Args:
        variant: Name of the variant.
        seed: Seed of the training.
    """
    process = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--train", variant, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    result: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Train all variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=SWEEPS, help="the variants to compare")
    parser.add_argument("data", type=Path, help="folder that `vitpipe data prepare cifar10` wrote")
    parser.add_argument("--preset", default="cifar10-cpu", help="the preset that the variants change")
    parser.add_argument("--epochs", type=int, help="epochs of each training; those of the preset if not given")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="variants of the sweep; all if not given")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant, with seeds 0, 1, ...")
    # The script starts itself with --train, to run each training in its own process.
    parser.add_argument("--train", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    variants = SWEEPS[args.sweep]
    for name in args.variants or ():
        if name not in variants:
            parser.error(f"--variants {name}: the sweep {args.sweep} has only {', '.join(variants)}")
    if args.train:
        variant, seed = args.train
        print(json.dumps(train(variants[variant], args.preset, args.data, args.epochs, int(seed))))
        return
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in args.variants or variants}
    for seed in range(args.seeds):
        for variant, found in results.items():
            found.append(train_alone(variant, seed))
            accuracy, loss, seconds = found[-1].values()
            print(f"{variant}, seed {seed}: val {accuracy:.4f}, loss {loss:.3f}, {seconds:.0f} s", flush=True)
    columns, rows = ["variant", "val accuracy, mean", "standard error", "training loss"], []
    for variant, found in results.items():
        accuracies = [result["val_accuracy"] for result in found]
        error = f"{stdev(accuracies) / len(found) ** 0.5:.4f}" if len(found) > 1 else "-"
        rows.append([variant, f"{mean(accuracies):.4f}", error, f"{mean(result['loss'] for result in found):.3f}"])
    for line in (columns, ["-"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |")
    record.write(args.sweep, columns, rows)


if __name__ == "__main__":
    main()

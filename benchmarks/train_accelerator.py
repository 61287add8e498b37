"""Speed and accuracy of a preset's training on one accelerator, without TFX and without TensorFlow.

`benchmarks/gpu.sh` prepares a machine with a GPU and says how to start this script there. It requires JAX, because
`jax_training.py` keeps all images on the device and compiles a whole epoch:

    KERAS_BACKEND=jax PYTHONPATH=. python benchmarks/train_accelerator.py build/accelerator/cifar10.npz --epochs 2

As in the pipeline, the averaged weights are evaluated on `val` after each epoch, and the best of them are tested. With
`training.use_val`, those of the last epoch are tested. `--set GROUP.KEY=VALUE` overrides a setting of the preset. A
learning rate fits one batch size, so set both together.

`docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import packed
import yaml
from jax_training import Recipe
from pydantic import ValidationError

from trainer.search_space import shorten
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings

CONFIGS = Path(__file__).parents[1] / "configs"
GROUPS = {"model": ModelSettings, "augment": AugmentSettings, "training": TrainingSettings}
PRESETS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=npz, help="packed images, a .npz file that packed.py wrote")
    parser.add_argument("--preset", default="cifar10", choices=PRESETS, metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings, with the seeds 0, 1, ...")
    parser.add_argument("--epochs", type=int, help="shorten the training, with a schedule of the same shape")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.KEY=VALUE",
        help="override a setting of the group model, augment or training",
    )
    parser.add_argument("--images", type=int, metavar="N", help="use only the first N images of each split")
    parser.add_argument(
        "--teacher-width", type=int, default=64, metavar="N", help="channels of the teacher's first convolution"
    )
    parser.add_argument(
        "--peak-tflops", type=float, help="peak TFLOP/s of the device, in the precision of the training"
    )
    parser.add_argument("--out", type=Path, help="append one line of JSON for each training to this file")
    parser.add_argument(
        "--save", type=npz, metavar="FILE.npz", help="save the tested weights, in files of at most 15 MiB"
    )
    args = parser.parse_args()
    if args.save and args.seeds > 1:
        parser.error(f"--save stores the weights of one training, not of {args.seeds}: leave out --seeds")
    # The folders are checked first, so that a misspelt one does not lose the results of a training.
    for path in (args.out, args.save):
        if path and not path.parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}; create it first")
    if os.environ.get("KERAS_BACKEND") != "jax":
        sys.exit("train_accelerator.py needs KERAS_BACKEND=jax: an epoch is one jax.lax.scan")
    model, augmentation, training = settings(args.preset, args.set, args.epochs)
    if training.accumulate > 1:
        sys.exit(f"training.accumulate {training.accumulate}: this loop computes a batch at once; set it to 1")

    recipe = Recipe(model, augmentation, training, packed.load(args.data, args.images), args.teacher_width)
    device, machine = recipe.device(), recipe.machine()
    print(
        f"{machine}, {recipe.attention}: {recipe.parameters:,} parameters, "
        f"{len(recipe.data['train'][1]):,} training images, {recipe.steps} steps an epoch",
        flush=True,
    )
    results = []
    for seed in range(args.seeds):
        result = {
            "seed": seed,
            "preset": args.preset,
            "set": args.set,
            "device": device,
            "machine": machine,
            "command": " ".join(["python", *sys.argv]),
            "parameters": recipe.parameters,
            "training_images": len(recipe.data["train"][1]),
            "peak_tflops": args.peak_tflops,
        }
        if recipe.teacher:
            result["teacher"] = recipe.teacher.train(seed, args.peak_tflops)
        result |= {"attention": recipe.attention, **recipe.train(seed, args.peak_tflops)}
        results.append(result["test_accuracy"])
        print(
            f"seed {seed}: test {result['test_accuracy']:.4f} with the weights of epoch {result['epoch']}; "
            f"{result['seconds']:.1f} s, {result['seconds_with_compilation']:.1f} s with compilation",
            flush=True,
        )
        if args.save:
            from weights import save

            result["weights"], result["weights_sha256"] = args.save.name, save(recipe.averaged, args.save)
            print(f"weights in {args.save}, SHA-256 {result['weights_sha256']}", flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
    error = f" +- {np.std(results, ddof=1) / np.sqrt(len(results)):.4f} (standard error)" if len(results) > 1 else ""
    chosen = "the last weights, trained on train and val" if training.use_val else "the weights that were best on val"
    print(f"test accuracy {np.mean(results):.4f}{error} over {len(results)} seeds, {chosen}")


def npz(value: str) -> Path:
    """Parse a command-line argument that names a `.npz` file."""
    if not value.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"{value} does not end in .npz: use a name such as cifar10.npz")
    return Path(value)


def settings(
    preset: str, overrides: list[str], epochs: int | None = None
) -> tuple[ModelSettings, AugmentSettings, TrainingSettings]:
    """Load the settings of a preset, override some of them, and shorten the training.

    Args:
        preset: Name of the preset.
        overrides: Overrides such as "model.pool=mean".
        epochs: Number of epochs to shorten the training to, see `trainer.search_space.shorten`. None: it stays.

    Returns:
        The groups of settings.
    """
    values = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())
    for override in overrides:
        key, _, value = override.partition("=")
        group, _, name = key.partition(".")
        if group not in GROUPS:
            sys.exit(f"--set {override}: the group must be one of {', '.join(GROUPS)}")
        values.setdefault(group, {})[name] = yaml.safe_load(value)
    try:
        model, augment, training = (kind(**values.get(group, {})) for group, kind in GROUPS.items())
    except ValidationError as error:
        group = next(group for group, kind in GROUPS.items() if kind.__name__ == error.title)
        for fault in error.errors():
            name = ".".join([group, *map(str, fault["loc"])])
            print(f"{name}: {fault['msg']}" + (f", not {fault['input']!r}" if fault["loc"] else ""), file=sys.stderr)
        sys.exit(1)
    if epochs is not None and not 0 < epochs <= training.epochs:
        sys.exit(f"--epochs {epochs} is not between 1 and {training.epochs}, the epochs of the preset")
    return model, augment, shorten(training, epochs)


if __name__ == "__main__":
    main()

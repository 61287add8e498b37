"""Record the results of `gpu_train.sh`, and test and push its models with the pipeline.

    python benchmarks/gpu_results.py FOLDER

Each model becomes the backbone of a run without epochs, so that the gate and the serving check decide whether it is
pushed. ML Metadata records it as accepted without training. With RECORD=1 the table is added to `docs/benchmarks.md`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import record
import weights


def main() -> int:
    """Print the table, and push the models. Return the largest exit code of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with results.jsonl and the weights")
    parser.add_argument("--check", action="store_true", help="read everything, but neither record nor push anything")
    args = parser.parse_args()
    try:
        lines = [json.loads(line) for line in (args.folder / "results.jsonl").read_text().splitlines()]
    except OSError as error:
        parser.error(f"{error}: name a folder that gpu_train.sh wrote")
    results = list({line["preset"]: line for line in lines}.values())  # of each preset, the last training
    models = {result["preset"]: weights.load(args.folder / result["weights"]) for result in results}
    for result in results:
        if weights.digest(models[result["preset"]]) != result["weights_sha256"]:
            parser.error(
                f"{args.folder / result['weights']} is not of the last training in results.jsonl: copy both again"
            )
    columns, rows = table(results)
    for line in (columns, ["-"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |")
    if args.check:
        return 0
    codes = [0]
    with tempfile.TemporaryDirectory() as scratch:
        for preset, model in models.items():
            file = Path(scratch, f"{preset}.keras")
            model.save(file)
            codes.append(push(preset, file))
    commands = "; ".join(f"`{result['command']}`" for result in results)
    record.write(
        "accelerator",
        columns,
        rows,
        note=f"Commands: {commands}. One seed each. With mirrored images, the logits of each test image and of "
        "its mirror image are added.",
        machine=results[0]["machine"],
    )
    return max(codes)


def table(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the table, with a column for each training."""
    trainings: dict[str, Mapping[str, Any]] = {}
    for result in results:
        if "teacher" in result:
            trainings[f"teacher of {result['preset']}, a CNN"] = result | {"parameters": "", **result["teacher"]}
        trainings[result["preset"]] = result
    figures = {
        "parameters": lambda result: f"{result['parameters']:,}" if result["parameters"] else "",
        "epochs": lambda result: str(result["epochs"]),
        "test accuracy": lambda result: f"{result['test_accuracy']:.4f}",
        "test accuracy with mirrored images": lambda result: f"{result['mirrored_test_accuracy']:.4f}",
        "seconds of training and evaluation": lambda result: f"{result['seconds']:.1f}",
        "seconds of compilation": lambda result: f"{result['compile_seconds']:.1f}",
        "seconds of an epoch": lambda result: f"{result['seconds_an_epoch']:.2f}",
        "images/s": lambda result: f"{result['images_per_second']:,.0f}",
        "share of the peak": lambda result: (
            f"{result['tflops'] / result['peak_tflops']:.1%}" if result["peak_tflops"] else ""
        ),
    }
    rows = [[name, *map(text, trainings.values())] for name, text in figures.items()]
    return ["figure", *trainings], rows


def push(preset: str, model: Path) -> int:
    """Test a model with the gate of a preset, and push it if it passes. Return the exit code of the run."""
    command = [sys.executable, "-m", "vitpipe", "finetune", "--from", str(model.resolve()), "-c", preset]
    for setting in ("finetune.head_epochs=0", "finetune.epochs=0", "training.teacher_epochs=0"):
        command += ["--set", setting]
    return subprocess.run([*command, "--set", f"name={preset}-accelerator"]).returncode


if __name__ == "__main__":
    sys.exit(main())

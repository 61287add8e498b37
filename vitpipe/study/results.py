"""Results of a study: means over the seeds, their intervals, and the machine that computed them."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydantic import BaseModel
from scipy import stats

from pipeline import provenance
from vitpipe.study.cells import Cell


class Row(BaseModel):
    """One architecture at one size. `interval`: 95 % by Student's t over the seeds, None for a single seed.

    A seed stands for a draw of the training images, initial weights, shuffles and augmentation together; the test
    images are the same for all.
    """

    architecture: str
    title: str
    size: int  # images a class
    steps: int
    accuracy: float
    interval: tuple[float, float] | None
    accuracies: list[float]  # by seed
    log_loss: float
    parameters: int
    multiply_adds: int
    seconds: float  # a cell
    seconds_per_step: float


class Found(BaseModel):
    data: str
    classes: list[str]
    test_images: int
    pretrained: str | None
    settings: dict[str, Any]
    machine: dict[str, str]
    rows: list[Row]


def rows(titles: Mapping[str, str], cells: Sequence[Cell]) -> list[Row]:
    """By architecture, in the order of `titles`, then by size, of the cells there are."""
    found = []
    for name, title in titles.items():
        of_arm = [cell for cell in cells if cell.place.architecture == name]
        for size in sorted({cell.place.size for cell in of_arm}):
            here = sorted((cell for cell in of_arm if cell.place.size == size), key=lambda cell: cell.place.seed)
            results = [cell.result for cell in here]
            accuracies = [result.accuracy for result in results]
            found.append(
                Row(
                    architecture=name,
                    title=title,
                    size=size,
                    steps=here[0].place.steps,
                    accuracy=float(np.mean(accuracies)),
                    interval=interval(accuracies),
                    accuracies=accuracies,
                    log_loss=float(np.mean([result.log_loss for result in results])),
                    parameters=results[0].parameters,
                    multiply_adds=results[0].multiply_adds,
                    seconds=float(np.mean([result.seconds for result in results])),
                    seconds_per_step=float(np.mean([result.seconds_per_step for result in results])),
                )
            )
    return found


def interval(accuracies: Sequence[float]) -> tuple[float, float] | None:
    """95 % for the mean, by Student's t, cut off at 0 and 1."""
    if len(accuracies) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(accuracies) - 1) * stats.sem(accuracies))
    mean = float(np.mean(accuracies))
    return max(mean - half, 0.0), min(mean + half, 1.0)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    import tensorflow as tf

    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "GPU": ", ".join(gpus) or "none",
        "system": f"{platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {version('keras')}",
        "code": provenance.code_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

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
    """Results of one architecture at one size: means over the seeds.

    A seed determines the draw of the training images, the initial weights, the shuffling and the augmentation. The test
    images are the same for all seeds.

    Attributes:
        architecture: the name of the architecture.
        title: its name in the legend of the chart.
        size: number of training images of each class.
        steps: number of optimizer steps.
        accuracy: mean accuracy on the test split.
        interval: 95 % confidence interval of `accuracy` by Student's t; None for a single seed.
        accuracies: the accuracy of each seed.
        log_loss: mean cross-entropy, in nats.
        parameters: number of parameters of the model.
        multiply_adds: multiply-adds of convolutions and matrix products, for one image.
        seconds: duration of one training with its evaluation.
        seconds_per_step: duration of one step.
    """

    architecture: str
    title: str
    size: int
    steps: int
    accuracy: float
    interval: tuple[float, float] | None
    accuracies: list[float]
    log_loss: float
    parameters: int
    multiply_adds: int
    seconds: float
    seconds_per_step: float


class StudyFigures(BaseModel):
    """Figures of a study, with what they were measured on.

    Attributes:
        data: the folder of the span.
        classes: names of the classes, in index order.
        test_images: number of images that the models were evaluated on.
        pretrained: source of the pretrained ViT's backbone; None without one.
        settings: the resolved settings of the study.
        machine: processor, memory, GPU and versions.
        rows: the results, by architecture and then by size.
    """

    data: str
    classes: list[str]
    test_images: int
    pretrained: str | None
    settings: dict[str, Any]
    machine: dict[str, str]
    rows: list[Row]


def make_rows(titles: Mapping[str, str], cells: Sequence[Cell]) -> list[Row]:
    """Summarize cells as one row for each architecture and size.

    Args:
        titles: the titles of the architectures, by their names.
        cells: the cells to summarize.

    Returns:
        The rows, in the order of `titles` and then by size.
    """
    rows = []
    for name, title in titles.items():
        of_architecture = [cell for cell in cells if cell.place.architecture == name]
        for size in sorted({cell.place.size for cell in of_architecture}):
            of_size = [cell for cell in of_architecture if cell.place.size == size]
            of_size.sort(key=lambda cell: cell.place.seed)
            results = [cell.result for cell in of_size]
            accuracies = [result.accuracy for result in results]
            rows.append(
                Row(
                    architecture=name,
                    title=title,
                    size=size,
                    steps=of_size[0].place.steps,
                    accuracy=float(np.mean(accuracies)),
                    interval=confidence_interval(accuracies),
                    accuracies=accuracies,
                    log_loss=float(np.mean([result.log_loss for result in results])),
                    parameters=results[0].parameters,
                    multiply_adds=results[0].multiply_adds,
                    seconds=float(np.mean([result.seconds for result in results])),
                    seconds_per_step=float(np.mean([result.seconds_per_step for result in results])),
                )
            )
    return rows


def confidence_interval(accuracies: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the mean by Student's t, clipped to 0 and 1. None for a single value."""
    if len(accuracies) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(accuracies) - 1) * stats.sem(accuracies))
    mean = float(np.mean(accuracies))
    return max(mean - half, 0.0), min(mean + half, 1.0)


def describe_machine() -> dict[str, str]:
    """Return the hardware and software that the figures were measured on, as text by name."""
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

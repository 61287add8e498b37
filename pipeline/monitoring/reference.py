"""Reference of a pushed version: the statistics of its training span, and its answers on the test set."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
from pydantic import ValidationError

from components.data.statistics.figures import FIGURES, TABLE, SplitFigures, read_figures
from components.errors import UsageError
from components.model.evaluator.measures import PREDICTIONS, predicted_classes
from components.model.serving_folder import ModelRecord
from pipeline.metadata.records import Artifact, Run
from pipeline.monitoring.calibration import Calibration
from trainer.framing import Framing

_MOST_ROWS = 200_000  # number of training images from which the usual looks are measured


@dataclass(frozen=True)
class Reference:
    """Training images and test answers that traffic is compared with."""

    version: int
    classes: list[str]  # in index order
    span: int
    framing: Framing  # choices by which the model gets its pixels
    train: SplitFigures  # statistics of the training images
    looks: "Looks"
    answers: list[int]  # answers on the test set by class, in index order
    calibration: Calibration


@dataclass(frozen=True)
class Looks:
    """Mean and covariance of the measures by which the distance of an image from the training images is computed."""

    mean: np.ndarray  # float64 [M]
    inverse: np.ndarray  # float64 [M, M], inverse of the covariance
    colour_deviation: np.ndarray  # float64 [3], standard deviation of an image's mean red, green and blue

    @classmethod
    def of(cls, measures: np.ndarray) -> "Looks":
        """Measure images.

        Args:
            measures: float64 [N, M], from `look_measures`.
        """
        covariance = np.cov(measures, rowvar=False) if len(measures) > 1 else np.zeros((measures.shape[1],) * 2)
        # The ridge keeps the inverse finite if a measure is constant, as the colours of grey images are.
        ridge = np.diag(np.maximum(np.diag(covariance), 1.0)) * 1e-3
        return cls(measures.mean(axis=0), np.linalg.inv(covariance + ridge), np.sqrt(np.diag(covariance)[:3]))

    def distance(self, measures: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of images from the training images, float64 [N].

        Args:
            measures: float64 [N, M], from `look_measures`.
        """
        centred = measures - self.mean
        squares = np.einsum("ni,ij,nj->n", centred, self.inverse, centred)
        distance: np.ndarray = np.sqrt(np.maximum(squares, 0) / len(self.mean))
        return distance


def look_measures(mean: np.ndarray, mean_square: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
    """Return the measures of images that distances are computed from, float64 [N, 7].

    Args:
        mean: float64 [N, 3], means of red, green and blue.
        mean_square: float64 [N, 3], means of their squares.
        sharpness: float64 [N], variances of the luma's Laplacian.
    """
    spread = np.sqrt(np.maximum(mean_square - mean**2, 0))
    return np.concatenate([mean, spread, np.log2(1 + sharpness)[:, None]], axis=1)


def read_reference(record: ModelRecord, run: Run) -> Reference:
    """Read the reference of a pushed version from the artifacts of the run that pushed it.

    Raises:
        UsageError: if an artifact no longer exists.
    """
    statistics, evaluation = _folder(run, "ImageStatistics", "statistics"), _folder(run, "Evaluator", "evaluation")
    try:
        figures = read_figures(statistics)
    except (OSError, ValidationError) as error:
        raise UsageError(f"{statistics / FIGURES} cannot be read ({type(error).__name__}): train again") from None
    labels, probabilities = _test_answers(evaluation)
    answers = predicted_classes(probabilities)
    return Reference(
        version=record.version,
        classes=record.classes,
        span=figures.span,
        framing=Framing(figures.image_size, figures.resize, figures.background),
        train=figures.splits["train"],
        looks=_looks(statistics),
        answers=np.bincount(answers[answers >= 0], minlength=len(record.classes)).tolist(),
        calibration=Calibration.of(probabilities.max(axis=1), answers == labels),
    )


def _folder(run: Run, node: str, name: str) -> Path:
    artifact: Artifact | None = run.output(node, name)
    if artifact is None or artifact.state != "live" or not Path(artifact.uri).is_dir():
        where = artifact.uri if artifact else "not recorded"
        raise UsageError(
            f"the output {name} of {node} in run {run.name}, which traffic is compared with, no longer exists "
            f"({where}): train again, and monitor that model"
        )
    return Path(artifact.uri)


def _test_answers(evaluation: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels, int [N], and the probabilities, float32 [N, classes], of the test set."""
    table = pyarrow.dataset.dataset(evaluation / PREDICTIONS).to_table(["label", "candidate"])
    flat = table["candidate"].combine_chunks().flatten().to_numpy()
    return table["label"].to_numpy(), flat.reshape(len(table), -1)


def _looks(statistics: Path) -> Looks:
    field = pyarrow.dataset.field
    table = pyarrow.dataset.dataset(statistics / TABLE)
    train = (field("split") == "train") & (field("reason") == "")
    # Each file is a part of one span. With every n-th row, a window of spans is represented as a whole.
    step = max(1, math.ceil(table.count_rows(filter=train) / _MOST_ROWS))
    rows, seen = [], 0
    for batch in table.to_batches(columns=["mean", "mean_square", "sharpness"], filter=train):
        rows.append(batch.take(pa.array(range(-seen % step, len(batch), step), pa.int64())))
        seen += len(batch)
    chosen = pa.Table.from_batches(rows).to_pandas()
    return Looks.of(
        look_measures(np.stack(chosen["mean"]), np.stack(chosen["mean_square"]), chosen.sharpness.to_numpy(float))
    )

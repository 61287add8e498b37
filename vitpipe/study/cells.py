"""Cells of a study. A cell is one training, whose result is stored so that it is computed only once."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.disk import atomic_write


class Place(BaseModel):
    """Place of a cell in its study.

    Attributes:
        architecture: the name of the architecture.
        size: the number of training images of each class.
        seed: the seed of the training.
        steps: the number of optimizer steps.
        key: the digest of everything that the result depends on: settings, data, code and backbone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    size: int = Field(gt=0)
    seed: int = Field(ge=0)
    steps: int = Field(gt=0)
    key: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def label(self) -> str:
        """Text that names the cell in messages."""
        return f"{self.architecture}, {self.size} a class, seed {self.seed}"

    @property
    def file(self) -> str:
        """Name of the file that stores the cell."""
        return f"{self.architecture}-{self.size}-{self.seed}-{self.key[:16]}.json"


class Result(BaseModel):
    """Result of a cell, measured on the whole test split after the last step.

    Attributes:
        right: number of images that were classified correctly.
        examples: number of images of the test split.
        log_loss: mean cross-entropy, in nats.
        parameters: number of parameters of the model.
        multiply_adds: multiply-adds of convolutions and matrix products, for one image.
        seconds: duration of the whole cell.
        seconds_per_step: duration of one step. The first step is left out, because it includes the compilation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    right: int = Field(ge=0)
    examples: int = Field(gt=0)
    log_loss: float
    parameters: int
    multiply_adds: int
    seconds: float
    seconds_per_step: float

    @property
    def accuracy(self) -> float:
        """Share of the images that were classified correctly."""
        return self.right / self.examples


class Cell(BaseModel):
    """One training of a study, with its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Place
    result: Result


def make_key(**parts: object) -> str:
    """Return the sha256 of everything that a cell depends on, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_result(folder: Path, place: Place) -> Cell | None:
    """Read a stored cell.

    Args:
        folder: the folder of the stored cells.
        place: the place of the cell.

    Returns:
        The cell, or None if it is missing, damaged, or stored for another place.
    """
    try:
        cell = Cell.model_validate_json((folder / place.file).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return cell if cell.place == place else None


def write_result(folder: Path, cell: Cell) -> None:
    """Store a cell. Its file is written completely or not at all, even if the machine crashes.

    Args:
        folder: the folder of the stored cells; created if missing.
        cell: the cell.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / cell.place.file) as file:
        file.write(f"{cell.model_dump_json(indent=1)}\n".encode())

"""Cells of a study. Each is one training, whose result is stored so that it is computed only once."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.disk import atomic_write


class Place(BaseModel):
    """Which cell it is. `key` is the digest of all that its result depends on: settings, data, code and backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    size: int = Field(gt=0)  # training images a class
    seed: int = Field(ge=0)
    steps: int = Field(gt=0)
    key: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def words(self) -> str:
        return f"{self.architecture}, {self.size} a class, seed {self.seed}"

    @property
    def file(self) -> str:
        return f"{self.architecture}-{self.size}-{self.seed}-{self.key[:16]}.json"


class Result(BaseModel):
    """What the training of a cell gave, on the whole test split after the last step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    right: int = Field(ge=0)
    examples: int = Field(gt=0)
    log_loss: float  # mean cross-entropy, in nats
    parameters: int
    multiply_adds: int  # of convolutions and matrix products, for one image
    seconds: float  # of the cell, all in all
    seconds_per_step: float  # without the first, which is compiled

    @property
    def accuracy(self) -> float:
        return self.right / self.examples


class Cell(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Place
    result: Result


def key(**what: object) -> str:
    """sha256 of everything a cell depends on."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def read_result(folder: Path, place: Place) -> Cell | None:
    """The cell, where it was computed from the same. What is no whole cell, or another's, counts as none."""
    try:
        cell = Cell.model_validate_json((folder / place.file).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return cell if cell.place == place else None


def write_result(folder: Path, cell: Cell) -> None:
    """Whole or not at all, also when the machine goes down."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / cell.place.file) as file:
        file.write(f"{cell.model_dump_json(indent=1)}\n".encode())

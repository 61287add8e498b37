"""Contents of a report as values. The page shows them, and `report.json` contains them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import field_validator

from components.data.gate.bounds import Finding
from components.errors import StoreError
from components.model.evaluator.judgement import Check, Judgement, Override
from pipeline.result.figures import Bin, Epoch
from pipeline.result.run_result import RunState, current_settings
from trainer.settings import Group
from trainer.trials import Trial


class Picture(Group):
    """Example with its image."""

    id: str
    source: str  # data URI of the image; empty if it does not decode


class Data(Group):
    """Data that the run trained on and tested with."""

    span: int
    earlier_spans: tuple[int, ...] = ()  # other spans of the window, the newest first
    gate_span: int
    previous_span: int | None  # span that it was compared with
    labels: dict[str, dict[str, int]]  # number of images by split and class
    findings: list[Finding]
    page: str  # absolute path of the page of the data gate


class Map(Group):
    """Map of the attention that the classifier pays to each patch, see `trainer.explain.patch_attention`."""

    name: str
    source: str  # data URI of a transparent picture, to be laid over the image
    most: float  # highest attention to a patch, 0 to 1
    row: int  # row of that patch, from 1
    column: int  # column of that patch, from 1
    entropy: float  # in bits


class ExplainedImage(Group):
    """Attention maps of an image."""

    source: str  # data URI of the image as the model sees it
    grid: int  # number of patches on each side
    maps: list[Map]


class Mistake(Group):
    """Test image with a confident wrong answer of the model."""

    picture: Picture
    label: str
    answer: str
    confidence: float
    explained: ExplainedImage | None = None  # only for the first mistakes


class Node(Group):
    """Node of the graph with its state."""

    name: str
    state: str
    seconds: float


class Report(Group):
    """Contents of the page of a run. Fields of steps that the run did not reach are None or empty."""

    run: str
    pipeline: str
    started: datetime
    seconds: float
    state: RunState
    verdict: list[str]  # lines that the command prints
    facts: dict[str, str]  # code version, digests, trigger, reason
    settings: dict[str, Any]
    data: Data | None
    samples: dict[str, list[Picture]]  # training images by class
    warm_start: str = ""  # description of the warm start
    trials: tuple[Trial, ...] = ()  # those of a tuning
    tuned: str = ""  # tuning whose values the model was trained with, and the values
    history: list[Epoch]
    judgement: Judgement | None
    override: Override | None
    calibration: list[Bin]
    mistakes: list[Mistake]
    unexplained: str = ""  # why the mistakes have no attention maps
    serving: list[Check]
    nodes: list[Node]
    lineage_of: str  # type and id of the artifact whose lineage is shown
    lineage: str  # the lineage as SVG

    @field_validator("settings")
    @classmethod
    def update_names(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Replace setting names of earlier versions, one of which may have written the report."""
        return current_settings(settings)

    def as_json(self) -> str:
        """Return the report as JSON for `read`. Unlike pydantic, `json` keeps infinite figures."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a `report.json`.

        Raises:
            StoreError: if the file is missing, or is not a report that this version can read.
        """
        try:
            return cls.model_validate(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError) as error:  # a ValueError comes from JSON, UTF-8 or pydantic
            raise StoreError(
                f"{file} is not a report that this version can read: {str(error).splitlines()[0]}"
            ) from None

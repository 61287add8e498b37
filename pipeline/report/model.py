"""Contents of a report as values. The page is drawn from them alone, and `report.json` holds them."""

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


class Picture(Group):
    """An example and its image as a data URI, which is empty where the image does not decode."""

    id: str
    source: str


class Data(Group):
    """What was trained and measured on. `labels`: images by split and class."""

    span: int
    gate_span: int
    previous_span: int | None  # that it was compared with
    labels: dict[str, dict[str, int]]
    findings: list[Finding]
    page: str  # the span's own page, absolute


class Map(Group):
    """How much the classifier's token takes from each patch, of one view; see `trainer.explain.seen`."""

    name: str
    source: str  # data URI of a picture with transparency, to be laid over the image
    most: float  # of a patch, 0 to 1
    row: int  # of that patch, from 1
    column: int
    entropy: float  # bits


class ExplainedImage(Group):
    """What a model looked at in an image."""

    source: str  # data URI, the image as the model sees it
    grid: int  # patches a side
    maps: list[Map]


class Mistake(Group):
    """A test image that the model is sure of, and wrong."""

    picture: Picture
    label: str
    answer: str
    confidence: float
    explained: ExplainedImage | None = None  # of the first few


class Node(Group):
    name: str
    state: str
    seconds: float


class Report(Group):
    """Everything on the page of a run; what a run did not come to is None or empty."""

    run: str
    pipeline: str
    started: datetime
    seconds: float
    state: RunState
    verdict: list[str]  # lines, as the command prints them
    facts: dict[str, str]  # code version, digests, trigger, reason
    settings: dict[str, Any]
    data: Data | None
    samples: dict[str, list[Picture]]  # by class, of what is trained on
    warm_start: str = ""  # what the training took over from the serving model, in words
    history: list[Epoch]
    judgement: Judgement | None
    override: Override | None
    calibration: list[Bin]
    mistakes: list[Mistake]
    unexplained: str = ""  # why no mistake is explained
    serving: list[Check]
    nodes: list[Node]
    lineage_of: str  # which artifact `lineage` is of
    lineage: str  # SVG

    @field_validator("settings")
    @classmethod
    def renamed(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return current_settings(settings)  # an earlier version may have written the report

    def as_json(self) -> str:
        """For `read`. Python's own JSON: a figure may be infinite, which pydantic's makes null of."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises StoreError where it is no report, or one of another version."""
        try:
            return cls.model_validate(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError) as error:  # of JSON, of UTF-8 and of pydantic
            raise StoreError(f"{file} is no report that this version reads: {str(error).splitlines()[0]}") from None

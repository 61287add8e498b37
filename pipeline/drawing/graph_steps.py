"""Steps of the pipeline's graph, for pictures of a run.

ML Metadata has no execution of a step that was skipped or has not started yet, and it does not relate conditions to
steps. Pictures take both from here. A test compares this table with the compiled graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """A step of the graph.

    `inputs` has the step that makes each input, by channel. `conditions` are the gates that must pass before the step
    runs. An `optional` step is part of some graphs only. `after` is a step that precedes this one without passing it
    anything.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    optional: bool = False
    after: str = ""


STEPS = {
    "ImportExampleGen": Step(),
    "TestExampleGen": Step(),
    "ImportSchemaGen": Step(),
    "StatisticsGen": Step({"examples": "ImportExampleGen", "schema": "ImportSchemaGen"}),
    "ExampleValidator": Step({"statistics": "StatisticsGen", "schema": "ImportSchemaGen"}),
    "ImageStatistics": Step(
        {"examples": "ImportExampleGen", "test_examples": "TestExampleGen", "schema": "ImportSchemaGen"}
    ),
    "PreviousSpan": Step(),
    "LabelCheck": Step(
        {"examples": "ImportExampleGen", "test_examples": "TestExampleGen", "statistics": "ImageStatistics"},
        optional=True,
    ),
    "DataGate": Step(
        {
            "examples": "ImportExampleGen",
            "test_examples": "TestExampleGen",
            "statistics": "ImageStatistics",
            "anomalies": "ExampleValidator",
            "previous": "PreviousSpan",
        }
    ),
    "Transform": Step({"examples": "ImportExampleGen", "schema": "ImportSchemaGen"}, ("DataGate",)),
    "Baseline": Step(),
    "Backbone": Step(conditions=("DataGate",), optional=True),
    "NewestTuning": Step(optional=True),
    "Tuner": Step(
        {
            "examples": "ImportExampleGen",
            "transform_graph": "Transform",
            "image_statistics": "ImageStatistics",
            "schema": "ImportSchemaGen",
        },
        ("DataGate",),
        optional=True,
    ),
    "Trainer": Step(
        {
            "examples": "ImportExampleGen",
            "transform_graph": "Transform",
            "image_statistics": "ImageStatistics",
            "schema": "ImportSchemaGen",
        },
        ("DataGate",),
    ),
    "Evaluator": Step(
        {
            "examples": "TestExampleGen",
            "statistics": "ImageStatistics",
            "model": "Trainer",
            "baseline_model": "Baseline",
            "schema": "ImportSchemaGen",
        },
        ("DataGate",),
    ),
    "ServingCheck": Step(
        {"model": "Trainer", "examples": "TestExampleGen", "schema": "ImportSchemaGen"}, ("DataGate",)
    ),
    "Pusher": Step(
        {
            "model": "Trainer",
            "model_blessing": "Evaluator",
            "infra_blessing": "ServingCheck",
            "examples": "ImportExampleGen",
            "test_examples": "TestExampleGen",
            "verdict": "DataGate",
        },
        ("DataGate", "Evaluator", "ServingCheck"),
    ),
    "RunReport": Step(after="Pusher"),
}
# Steps that the graph of a tuning lacks.
WITHOUT_TUNING = ("Baseline", "Trainer", "Evaluator", "ServingCheck", "Pusher")

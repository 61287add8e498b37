"""TFX's Evaluator with the model gate. It alone issues the ModelBlessing, and records everything it compared."""

import json
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components import artifacts
from components.data.statistics.component import read_table
from components.model.evaluator.judgement import GateSettings, judge
from components.model.evaluator.measures import FEWEST_SHARED, compare, compare_shared, measure, predicted_classes
from components.model.evaluator.predictions import Predictions, predict
from trainer.examples import LABEL, class_names

PREDICTIONS = "predictions.parquet"  # a row an example of the test set: what each model answered

_CANDIDATE, _SERVING = "candidate", "serving"
_LOOKS = ("brightness", "sharpness")
_THIRDS = ("low", "middle", "high")  # of the test set, by how bright or sharp an image is


class Executor(base_beam_executor.BaseBeamExecutor):
    """Asks each model once, measures with TFMA, then judges.

    A model that fails does not fail the step: TFX would delete its outputs, and nobody could read why. It completes
    with `blessed` 0, and what follows is skipped.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = GateSettings.model_validate_json(exec_properties["gate"])
        evaluation = Path(artifact_utils.get_single_uri(output_dict["evaluation"]))
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        names = class_names(io_utils.SchemaReader().read(schema_file))
        shards = sorted(Path(artifact_utils.get_split_uri(input_dict["examples"], "test")).iterdir())
        models = {_CANDIDATE: input_dict["model"], _SERVING: input_dict.get("baseline_model", [])}
        answers = {
            role: predict(path_utils.serving_model_path(model.uri), shards)
            for role, [*of_role] in models.items()
            for model in of_role
        }
        if differing := answers[_CANDIDATE].misnamed(names):
            raise ValueError(f"the candidate cannot be judged: {differing}; train it again on these data")
        labels = answers[_CANDIDATE].labels
        comparison = None
        # If a model serves but its artifact is gone, nothing is compared, and the verdict must say so.
        incomparable = exec_properties["serving"] if _SERVING not in answers else ""
        if _SERVING in answers and (differing := answers[_SERVING].misnamed(names)):
            other = answers.pop(_SERVING)  # its classes differ, so it has no figures on the whole test set
            if sorted(other.names) == sorted(names):
                answers[_SERVING] = other.reordered(names)
            else:
                ours, theirs = (predicted_classes(of.probabilities) for of in (answers[_CANDIDATE], other))
                comparison = compare_shared(labels, names, ours, theirs, [*other.names], settings.confidence)
                if comparison is None:
                    incomparable = (
                        f"{differing}; fewer than {FEWEST_SHARED} test images are of classes that both models know"
                    )
        statistics = Path(artifact_utils.get_single_uri(input_dict["statistics"]))
        table = _table(answers, read_table(statistics, ["split", "id", *_LOOKS]))
        table.to_parquet(evaluation / PREDICTIONS)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create(pa.Table.from_pandas(_for_tfma(table)).to_batches(max_chunksize=1000))
                | tfma.ExtractEvaluateAndWriteResults(
                    eval_config=_eval_config(list(answers)), eval_shared_model=None, output_path=str(evaluation)
                )
            )

        figures = {}
        for role, of_role in answers.items():
            looks = _looks_accuracy(evaluation, role, list(answers))
            figures[role] = measure(labels, of_role.probabilities, names, settings.confidence, looks)
        if _SERVING in answers:
            candidate, serving = (predicted_classes(answers[role].probabilities) for role in (_CANDIDATE, _SERVING))
            comparison = compare(labels, candidate, serving, settings.confidence)
        judgement = judge(settings, figures[_CANDIDATE], figures.get(_SERVING), comparison, incomparable)

        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessed = int(judgement.blessed)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, blessed)
        blessing.set_string_custom_property("judgement", judgement.model_dump_json())
        for key, role in ("model", "current_model"), ("baseline_model", "baseline_model"):
            for model in input_dict.get(key, []):
                blessing.set_string_custom_property(f"{role}_uri", model.uri)
                blessing.set_int_custom_property(f"{role}_id", model.id)
        name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
        (Path(blessing.uri) / name).touch()  # the file TFX's own tools look for


class EvaluatorSpec(ComponentSpec):
    PARAMETERS: ClassVar = {"gate": ExecutionParameter(type=str), "serving": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=artifacts.ImageStatisticsArtifact),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS: ClassVar = {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """Weighs the candidate, and the model serving now, on the `test` split.

    Args:
        examples: raw examples with a `test` split.
        statistics: how bright and sharp their images are.
        model: the candidate.
        baseline_model: the model serving now; the channel may be empty.
        schema: carries the class names.
        gate: the bounds.
        serving: what to report if a model serves now and `baseline_model` is empty; empty if no model serves.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        statistics: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        schema: types.BaseChannel,
        gate: GateSettings,
        serving: str = "",
    ):
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                statistics=statistics,
                model=model,
                baseline_model=baseline_model,
                schema=schema,
                gate=gate.model_dump_json(),
                serving=serving,
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )


def _table(answers: dict[str, Predictions], images: pd.DataFrame) -> pd.DataFrame:
    """A row an example: id, label, the thirds of its looks, and the probabilities of each model."""
    candidate = answers[_CANDIDATE]
    table = pd.DataFrame({"id": candidate.ids, LABEL: candidate.labels})
    looks = images[images.split == "test"].drop_duplicates("id").set_index("id").reindex(table.id)
    for look in _LOOKS:
        # By rank, so that each third has its images however alike they are.
        rank = looks[look].rank(method="first", na_option="top").to_numpy(int) - 1
        table[look] = np.array(_THIRDS)[rank * 3 // len(table)]
    for role, of_role in answers.items():
        table[role] = list(of_role.probabilities)
    return table


def _for_tfma(table: pd.DataFrame) -> pd.DataFrame:
    """The same with every value in a list, as TFMA expects a feature."""
    lists = {name: [[value] for value in table[name]] for name in (LABEL, *_LOOKS)}
    return table[[name for name in (_CANDIDATE, _SERVING) if name in table]].assign(**lists)


def _looks_accuracy(evaluation: Path, role: str, roles: list[str]) -> dict[str, float]:
    """Accuracy by third, as TFMA measured it."""
    result = tfma.load_eval_result(str(evaluation), model_name=role if len(roles) > 1 else None)
    return {
        f"{key[0][0]} {key[0][1]}": metrics[""][""]["sparse_categorical_accuracy"]["doubleValue"]
        for key, metrics in sorted(result.slicing_metrics)
        if key and key[0][0] in _LOOKS
    }


def _eval_config(roles: list[str]) -> config_pb2.EvalConfig:
    """No thresholds: the gate judges. The models were asked already, so TFMA reads their answers as features."""

    def metric(class_name: str, **config: object) -> config_pb2.MetricConfig:
        return config_pb2.MetricConfig(class_name=class_name, config=json.dumps(config))

    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=role, prediction_key=role, label_key=LABEL, is_baseline=role == _SERVING)
            for role in roles
        ],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=[feature]) for feature in (LABEL, *_LOOKS)),
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    metric("ExampleCount"),
                    metric("SparseCategoricalAccuracy"),
                    metric("SparseTopKCategoricalAccuracy", k=3, name="top_3_accuracy"),
                    metric("SparseCategoricalCrossentropy", name="log_loss"),
                ]
            )
        ],
    )

"""Node that measures a candidate with TFMA and judges it. It alone issues the ModelBlessing."""

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

PREDICTIONS = "predictions.parquet"  # answers of each model, one row for each example of the test set

_CANDIDATE, _SERVING = "candidate", "serving"
_LOOKS = ("brightness", "sharpness")
_THIRDS = ("low", "middle", "high")  # thirds of the test set, by brightness or sharpness of the images


class Executor(base_beam_executor.BaseBeamExecutor):
    """Executor that requests the predictions of each model once, measures them with TFMA, and judges the candidate.

    The step completes even if the model does not pass, because TFX would delete the outputs of a failed step, and with
    them the reasons. It sets `blessed` to 0, and the steps that follow are skipped.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluate the candidate, and write the measurements and the blessing.

        Args:
            input_dict: The inputs of `EvaluatorSpec`.
            output_dict: `evaluation` and `blessing`. The blessing's property `judgement` holds a `Judgement`, as JSON.
            exec_properties: The parameters of `EvaluatorSpec`.

        Raises:
            ValueError: If a model does not load, or the classes of the candidate are not those of the data.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = GateSettings.model_validate_json(exec_properties["gate"])
        evaluation = Path(artifact_utils.get_single_uri(output_dict["evaluation"]))
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        names = class_names(io_utils.SchemaReader().read(schema_file))
        shards = sorted(Path(artifact_utils.get_split_uri(input_dict["examples"], "test")).iterdir())
        models = {_CANDIDATE: input_dict["model"], _SERVING: input_dict.get("baseline_model", [])}
        answers = {
            role: predict(path_utils.serving_model_path(model.uri), shards)
            for role, artifacts_of_role in models.items()
            for model in artifacts_of_role
        }
        if difference := answers[_CANDIDATE].class_difference(names):
            raise ValueError(f"the candidate cannot be judged: {difference}; train it again on this data")
        labels = answers[_CANDIDATE].labels
        comparison = None
        # If a model serves but its artifact is missing, nothing is compared, and the verdict must say so.
        incomparable = exec_properties["serving"] if _SERVING not in answers else ""
        if _SERVING in answers and (difference := answers[_SERVING].class_difference(names)):
            serving_answers = answers.pop(_SERVING)  # a model with other classes has no figures on the whole test set
            if sorted(serving_answers.names) == sorted(names):
                answers[_SERVING] = serving_answers.reorder(names)
            else:
                candidate, serving = (
                    predicted_classes(predictions.probabilities)
                    for predictions in (answers[_CANDIDATE], serving_answers)
                )
                comparison = compare_shared(
                    labels, names, candidate, serving, [*serving_answers.names], settings.confidence
                )
                if comparison is None:
                    incomparable = (
                        f"{difference}; fewer than {FEWEST_SHARED} test images are of classes that both models know"
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
        for role, predictions in answers.items():
            looks = _looks_accuracy(evaluation, role, list(answers))
            figures[role] = measure(labels, predictions.probabilities, names, settings.confidence, looks)
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
        (Path(blessing.uri) / name).touch()  # TFX's own tools read the verdict from the name of this file


class EvaluatorSpec(ComponentSpec):
    """Specification of `Evaluator`."""

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
    """Component that evaluates the candidate, and compares it with the serving model, on the `test` split.

    Args:
        examples: Raw examples with a `test` split.
        statistics: Image statistics, with the brightness and sharpness of the images.
        model: The candidate.
        baseline_model: The serving model. The channel may be empty.
        schema: Schema with the class names.
        gate: Bounds that the candidate must satisfy.
        serving: Warning to report if a model serves but `baseline_model` is empty. Empty if no model serves.
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
    ) -> None:
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
    """Make the table of predictions: id, label, thirds of brightness and sharpness, and each model's probabilities."""
    candidate = answers[_CANDIDATE]
    table = pd.DataFrame({"id": candidate.ids, LABEL: candidate.labels})
    looks = images[images.split == "test"].drop_duplicates("id").set_index("id").reindex(table.id)
    for look in _LOOKS:
        # Thirds of ranks have the same size even if many images have the same value.
        rank = looks[look].rank(method="first", na_option="top").to_numpy(int) - 1
        table[look] = np.array(_THIRDS)[rank * 3 // len(table)]
    for role, predictions in answers.items():
        table[role] = list(predictions.probabilities)
    return table


def _for_tfma(table: pd.DataFrame) -> pd.DataFrame:
    """Select the columns that TFMA reads, with every value in a list, as it expects features."""
    lists = {name: [[value] for value in table[name]] for name in (LABEL, *_LOOKS)}
    return table[[name for name in (_CANDIDATE, _SERVING) if name in table]].assign(**lists)


def _looks_accuracy(evaluation: Path, role: str, roles: list[str]) -> dict[str, float]:
    """Read the accuracy on each third, which TFMA measured."""
    result = tfma.load_eval_result(str(evaluation), model_name=role if len(roles) > 1 else None)
    return {
        f"{key[0][0]} {key[0][1]}": metrics[""][""]["sparse_categorical_accuracy"]["doubleValue"]
        for key, metrics in sorted(result.slicing_metrics)
        if key and key[0][0] in _LOOKS
    }


def _eval_config(roles: list[str]) -> config_pb2.EvalConfig:
    """Make TFMA's configuration. It has no thresholds, because the gate judges, and reads predictions as features."""

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

"""Node that measures a candidate with TFMA and judges it. It alone issues the ModelBlessing."""

import json
from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components import artifacts
from components.data.statistics.figures import TABLE
from components.model.evaluator.judgement import GateSettings, judge
from components.model.evaluator.measures import (
    FEWEST_SHARED,
    PREDICTIONS,
    Sums,
    compare,
    compare_shared,
    predicted_classes,
)
from components.model.evaluator.predictions import Predictions, as_lists, predict
from trainer.examples import LABEL, class_names

_CANDIDATE, _SERVING = "candidate", "serving"
_LOOKS = ("brightness", "sharpness")
_THIRDS = pa.array(["low", "middle", "high"])  # thirds of the test set, by brightness or sharpness of the images


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
        with TemporaryDirectory(dir=evaluation) as scratch:
            answers = {}
            for role, artifacts_of_role in models.items():
                for model in artifacts_of_role:
                    (folder := Path(scratch, role)).mkdir()
                    answers[role] = predict(path_utils.serving_model_path(model.uri), shards, folder)
            if difference := answers[_CANDIDATE].class_difference(names):
                raise ValueError(f"the candidate cannot be judged: {difference}; train it again on this data")
            labels, candidate = _answers(answers[_CANDIDATE])
            comparison = None
            # If a model serves but its artifact is missing, nothing is compared, and the verdict must say so.
            incomparable = exec_properties["serving"] if _SERVING not in answers else ""
            if _SERVING in answers:
                difference = answers[_SERVING].class_difference(names)
                if difference and sorted(answers[_SERVING].names) == sorted(names):
                    answers[_SERVING], difference = answers[_SERVING].reorder(names), ""
                _, serving = _answers(answers[_SERVING])
                if not difference:
                    comparison = compare(labels, candidate, serving, settings.confidence)
                else:  # a model with other classes has no figures on the whole test set
                    comparison = compare_shared(
                        labels, names, candidate, serving, [*answers.pop(_SERVING).names], settings.confidence
                    )
                    if comparison is None:
                        incomparable = (
                            f"{difference}; fewer than {FEWEST_SHARED} test images are of classes that both models know"
                        )
            sums = {role: _sums(predictions) for role, predictions in answers.items()}
            statistics = Path(artifact_utils.get_single_uri(input_dict["statistics"]))
            files = _write(answers, statistics / TABLE, evaluation / PREDICTIONS)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create([str(file) for file in files])
                | beam.Reshuffle()
                | beam.FlatMap(_read_for_tfma)
                | tfma.ExtractEvaluateAndWriteResults(
                    eval_config=_eval_config(list(answers)), eval_shared_model=None, output_path=str(evaluation)
                )
            )

        figures = {
            role: sums[role].figures(names, settings.confidence, _looks(evaluation, role, list(answers)))
            for role in answers
        }
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


def _answers(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the predicted classes of all examples, int [N]."""
    batches = ((batch.labels, predicted_classes(batch.probabilities)) for batch in predictions.batches())
    labels, answers = zip(*batches, strict=True)
    return np.concatenate(labels), np.concatenate(answers)


def _sums(predictions: Predictions) -> Sums:
    return reduce(add, (Sums.of(batch.labels, batch.probabilities) for batch in predictions.batches()))


def _write(answers: dict[str, Predictions], images: Path, folder: Path) -> list[Path]:
    """Write the table of predictions: id, label, thirds of brightness and sharpness, and each model's probabilities.

    Args:
        answers: predictions of each model for the same shards.
        images: Parquet files of the table of images.
        folder: the new folder, which gets a Parquet file for each shard.

    Returns:
        The files.
    """
    folder.mkdir()
    shards = answers[_CANDIDATE].files
    files = []
    for number, thirds in enumerate(_thirds(images, [shard.stem for shard in shards])):
        files.append(folder / f"part-{number:05}.parquet")
        batches = zip(*(predictions.read(predictions.files[number]) for predictions in answers.values()), strict=True)
        schema = pa.schema(
            {
                "id": pa.binary(),
                LABEL: pa.int64(),
                **dict.fromkeys(_LOOKS, pa.string()),
                **dict.fromkeys(answers, pa.list_(pa.float32())),
            }
        )
        start = 0
        with pq.ParquetWriter(files[-1], schema) as writer:
            for of_models in batches:
                end = start + len(of_models[0].ids)
                columns = [of_models[0].ids, of_models[0].labels]
                columns += [_THIRDS.take(pa.array(of_look[start:end])) for of_look in thirds]
                columns += [as_lists(batch.probabilities) for batch in of_models]
                writer.write_table(pa.table(columns, schema=schema))
                start = end
    return files


def _thirds(images: Path, shards: list[str]) -> list[list[np.ndarray]]:
    """Return the third of the test set to which each image belongs by each of _LOOKS, as int [N] for each shard.

    The thirds depend on the order of all images of the test set, which takes 24 bytes for each image.
    """
    table, field = pa.dataset.dataset(images), pa.dataset.field
    columns = ["offset", *_LOOKS]
    of_shards = [
        table.to_table(columns, filter=(field("split") == "test") & (field("shard") == shard)).sort_by("offset")
        for shard in shards
    ]
    thirds = []
    for look in _LOOKS:
        values = np.concatenate([of_shard[look].to_numpy() for of_shard in of_shards])
        # Thirds of ranks have the same size even if many images have the same value. Undecodable images come first.
        order = np.argsort(np.nan_to_num(values, nan=-np.inf), kind="stable")
        third = np.empty(len(order), np.int8)
        third[order] = np.arange(len(order)) * len(_THIRDS) // len(order)
        thirds.append(np.split(third, np.cumsum([len(of_shard) for of_shard in of_shards])[:-1]))
    return [list(of_shard) for of_shard in zip(*thirds, strict=True)]


def _read_for_tfma(file: str) -> Iterator[pa.RecordBatch]:
    """Yield the columns that TFMA reads, with every value in a list, as it expects features."""
    for batch in pq.ParquetFile(file).iter_batches(1000):
        columns = {
            name: batch[name] if pa.types.is_list(batch[name].type) else as_lists(batch[name])
            for name in batch.schema.names
            if name != "id"
        }
        yield pa.RecordBatch.from_pydict(columns)


def _looks(evaluation: Path, role: str, roles: list[str]) -> dict[str, tuple[int, int]]:
    """Read the numbers of correct answers and of examples in each third, which TFMA measured."""
    result = tfma.load_eval_result(str(evaluation), model_name=role if len(roles) > 1 else None)
    looks = {}
    for key, metrics in sorted(result.slicing_metrics):
        if key and key[0][0] in _LOOKS:
            measured = metrics[""][""]
            count = round(measured["example_count"]["doubleValue"])
            accuracy = measured["sparse_categorical_accuracy"]["doubleValue"]
            looks[f"{key[0][0]} {key[0][1]}"] = round(accuracy * count), count
    return looks


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

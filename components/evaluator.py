"""TFX's Evaluator with the gate: it alone issues the ModelBlessing, with everything that was weighed."""

from pathlib import Path

import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components import Evaluator as TfxEvaluator
from tfx.components.evaluator import constants, executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.gate import Figures, GateSettings, judge
from trainer.examples import LABEL, class_names

_CANDIDATE, _SERVING = "candidate", "serving"
_ACCURACY = "sparse_categorical_accuracy"


class Executor(executor.Executor):
    """Measures with TFMA, then judges.

    A model that fails does not fail the step: TFX would delete its outputs, and nobody could read why. It completes
    with `blessed` 0, and what follows is skipped.
    """

    def Do(self, input_dict, output_dict, exec_properties):
        super().Do(input_dict, output_dict, exec_properties)
        evaluation = artifact_utils.get_single_uri(output_dict["evaluation"])
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        names = class_names(io_utils.SchemaReader().read(schema_file))
        has_serving = bool(input_dict.get("baseline_model"))
        judgement = judge(
            GateSettings.model_validate_json(exec_properties["gate"]),
            _figures(evaluation, _CANDIDATE if has_serving else None, names),
            _figures(evaluation, _SERVING, names) if has_serving else None,
        )
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


class Evaluator(TfxEvaluator):
    """Accuracy on the `test` split, overall and by class, of the candidate and of the model serving now.

    Args:
        examples: raw examples with a `test` split.
        model: the candidate.
        baseline_model: the model serving now; the channel may be empty.
        schema: carries the class names.
        gate: the bounds.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        schema: types.BaseChannel,
        gate: GateSettings,
    ):
        super().__init__(
            examples=examples,
            model=model,
            baseline_model=baseline_model,
            schema=schema,
            example_splits=["test"],
            eval_config=_eval_config(),
        )
        self.spec.exec_properties["gate"] = gate.model_dump_json()


def _eval_config() -> tfma.EvalConfig:
    # No thresholds: with one, TFX's own executor would issue a blessing before the gate has judged.
    spec = {"signature_name": "serving_default", "prediction_key": "probabilities", "label_key": LABEL}
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(name=_CANDIDATE, **spec),
            tfma.ModelSpec(name=_SERVING, is_baseline=True, **spec),
        ],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[LABEL])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="ExampleCount"),
                    tfma.MetricConfig(class_name="SparseCategoricalAccuracy"),
                ]
            )
        ],
    )


def _figures(evaluation: str, model: str | None, names: list[str]) -> Figures:
    """Overall accuracy, and by class: among the examples of one class that is the share answered right."""
    result = tfma.load_eval_result(evaluation, model_name=model)
    by_slice = {key: metrics[""][""][_ACCURACY]["doubleValue"] for key, metrics in result.slicing_metrics}
    return Figures(
        accuracy=by_slice[()],
        class_accuracy={
            name: by_slice[((LABEL, index),)] for index, name in enumerate(names) if ((LABEL, index),) in by_slice
        },
    )

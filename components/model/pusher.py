"""TFX's Pusher with an atomic push: a model server sees a complete version or none."""

import json
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.data.span_properties import EARLIER_SPANS, SPAN_DIGEST, data_digest
from components.model.evaluator.judgement import Judgement
from components.model.serving_folder import ModelId, push_candidate, serving_now


class Executor(executor.Executor):
    """Executor that copies the model next to its target and then renames it.

    TFX's own executor copies to the target itself, and a crash can leave half a model that serves.

    The serving model is not pushed again, and neither is a model that was rolled back. In these cases `pushed_model`
    names the serving version and has `pushed` 0, or 1 if an earlier attempt of this run pushed the model and was
    killed. The graph runs this step only for a blessed model.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Push the model, and record the pushed version.

        Args:
            input_dict: The inputs of `PusherSpec`.
            output_dict: `pushed_model`.
            exec_properties: The parameters of `PusherSpec`.

        Raises:
            OSError: If the disk is full, or the version exists already.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        folder = Path(exec_properties["serving"])
        model, blessing, infra_blessing, examples = (
            artifact_utils.get_single_instance(input_dict[key])
            for key in ("model", "model_blessing", "infra_blessing", "examples")
        )
        serving = serving_now(folder)
        withdrawn = serving is not None and any(model_id.identifies(model) for model_id in serving.withdrawn)
        if serving is not None and (withdrawn or serving.model.identifies(model)):
            version = serving.version
            if serving.run_id == self._context.pipeline_run_id and serving.restored_from is None:
                pushed_model.set_int_custom_property("pushed", 1)
            else:
                self._MarkNotPushed(pushed_model)
        else:
            record = push_candidate(
                Path(self.GetModelPath(input_dict)),
                folder,
                exec_properties["keep"],
                figures=Judgement.model_validate_json(blessing.get_string_custom_property("judgement")).candidate,
                signatures=json.loads(infra_blessing.get_string_custom_property("signatures")),
                run_id=self._context.pipeline_run_id,
                model=ModelId(uri=model.uri, created_ms=model.mlmd_artifact.create_time_since_epoch),
                span=examples.get_int_custom_property("span"),
                data_digest=data_digest(*map(examples.get_string_custom_property, (SPAN_DIGEST, EARLIER_SPANS))),
                **json.loads(exec_properties["made_by"]),
            )
            version = record.version
            pushed_model.set_int_custom_property("pushed", 1)
        pushed_model.set_int_custom_property("withdrawn", int(withdrawn))
        pushed_model.set_string_custom_property("pushed_version", str(version))
        pushed_model.set_string_custom_property("pushed_destination", str(folder / str(version)))


class PusherSpec(ComponentSpec):
    """Specification of `Pusher`."""

    PARAMETERS: ClassVar = {
        "serving": ExecutionParameter(type=str),
        "keep": ExecutionParameter(type=int),
        "made_by": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS: ClassVar = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class Pusher(base_component.BaseComponent):
    """Component that pushes a blessed model to the folder that a model server watches.

    Args:
        model: The candidate.
        model_blessing: Verdict of the gate.
        infra_blessing: Verdict of the serving check.
        examples: Examples that the candidate was trained on, for its record.
        serving: Absolute path of the folder.
        keep: Number of newest versions to keep in the folder.
        made_by: `code_version` and `settings_digest`, for the record.
    """

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        examples: types.BaseChannel,
        serving: str,
        keep: int,
        made_by: dict[str, str],
    ) -> None:
        super().__init__(
            PusherSpec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                examples=examples,
                serving=serving,
                keep=keep,
                made_by=json.dumps(made_by),
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )

"""TFX's Pusher with an atomic push: a model server sees a complete version or none."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import DataVerdictArtifact
from components.data.gate.component import find_verdict
from components.data.span_properties import DATA_PROPERTIES, EARLIER_SPANS, SPAN_DIGEST, data_digest
from components.model.evaluator.judgement import Check, Judgement
from components.model.model_card import CardFacts, model_card
from components.model.serving_folder import ModelId, push_candidate, serving_now
from trainer.warm_start import WARM_START


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
        model, blessing, infra_blessing, examples, test_examples, verdict = (
            artifact_utils.get_single_instance(input_dict[key])
            for key in ("model", "model_blessing", "infra_blessing", "examples", "test_examples", "verdict")
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
            data = [examples.get_string_custom_property(name) for name in DATA_PROPERTIES]
            facts = CardFacts(
                run_id=self._context.pipeline_run_id,
                code_version=exec_properties["code_version"],
                settings=json.loads(exec_properties["settings"]),
                settings_digest=hashlib.sha256(exec_properties["settings"].encode()).hexdigest(),
                model=ModelId(uri=model.uri, created_ms=model.mlmd_artifact.create_time_since_epoch),
                span=examples.get_int_custom_property("span"),
                data_digest=data_digest(*data),
                gate_data_digest=test_examples.get_string_custom_property(SPAN_DIGEST),
                judgement=Judgement.model_validate_json(blessing.get_string_custom_property("judgement")),
                serving=[Check(**check) for check in json.loads(infra_blessing.get_string_custom_property("checks"))],
                data=find_verdict(Path(verdict.uri)),
                earlier_spans=tuple(map(int, json.loads(examples.get_string_custom_property(EARLIER_SPANS) or "{}"))),
                warm_start=model.has_custom_property(WARM_START),
            )
            record = push_candidate(
                Path(self.GetModelPath(input_dict)),
                folder,
                exec_properties["keep"],
                figures=facts.judgement.candidate,
                signatures=json.loads(infra_blessing.get_string_custom_property("signatures")),
                run_id=facts.run_id,
                model=facts.model,
                span=facts.span,
                data_digest=facts.data_digest,
                code_version=facts.code_version,
                settings_digest=facts.settings_digest,
                card=model_card(facts),
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
        "code_version": ExecutionParameter(type=str),
        "settings": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "test_examples": ChannelParameter(type=standard_artifacts.Examples),
        "verdict": ChannelParameter(type=DataVerdictArtifact),
    }
    OUTPUTS: ClassVar = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class Pusher(base_component.BaseComponent):
    """Component that pushes a blessed model to the folder that a model server watches.

    Args:
        model: The candidate.
        model_blessing: Verdict of the gate.
        infra_blessing: Verdict of the serving check.
        examples: Examples that the candidate was trained on, for its record.
        test_examples: Examples that it was tested on, for its card.
        verdict: Verdict on the data, for its card.
        serving: Absolute path of the folder.
        keep: Number of newest versions to keep in the folder.
        code_version: Version of the code, for the record.
        settings: Resolved settings of the run as JSON, for the record and the card.
    """

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        examples: types.BaseChannel,
        test_examples: types.BaseChannel,
        verdict: types.BaseChannel,
        serving: str,
        keep: int,
        code_version: str,
        settings: str,
    ) -> None:
        super().__init__(
            PusherSpec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                examples=examples,
                test_examples=test_examples,
                verdict=verdict,
                serving=serving,
                keep=keep,
                code_version=code_version,
                settings=settings,
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )

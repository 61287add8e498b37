"""TFX's Trainer, which also accepts a backbone, and leaves out examples in which the data gate found leaks."""

from pathlib import Path
from typing import Any

from tfx import types
from tfx.components import Trainer as TfxTrainer
from tfx.components.trainer import executor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils
from tfx.types.component_spec import ChannelParameter

from components import artifacts
from components.data.gate.bounds import LEAVE_OUT
from components.model.backbone import FILE as BACKBONE
from components.model.serving_folder import serving_now
from trainer.warm_start import WARM_START, read

_FILES = {"verdict": ("leave_out", LEAVE_OUT), "backbone": ("backbone", BACKBONE)}


class Executor(executor.GenericExecutor):
    """TFX's executor, with `leave_out` and `backbone`, paths of files, in the custom config if there are such inputs.

    For a warm start the custom config also has `base_version`, and a property of the model records which classes were
    taken over.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        super().Do(input_dict, output_dict, exec_properties)
        if warm_start := read(Path(artifact_utils.get_single_uri(output_dict["model_run"]))):
            model = artifact_utils.get_single_instance(output_dict["model"])
            model.set_string_custom_property(WARM_START, warm_start.model_dump_json())

    def _GetFnArgs(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> FnArgs:
        arguments = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        for name, (key, file) in _FILES.items():
            for artifact in input_dict.get(name, []):
                arguments.custom_config = {**arguments.custom_config, key: str(Path(artifact.uri) / file)}
        for model in input_dict.get("base_model", []):
            served = serving_now(Path(arguments.custom_config["serving"]))
            if served and served.model.names(model):
                arguments.custom_config = {**arguments.custom_config, "base_version": served.version}
        return arguments


class Trainer(TfxTrainer):
    """See `Executor`. verdict: the data gate's, or None to leave nothing out; backbone: what to fine-tune, or None to
    train from scratch; the rest is TFX's."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, verdict: types.BaseChannel | None, backbone: types.BaseChannel | None, **inputs: Any):
        super().__init__(**inputs)
        kinds = {
            "verdict": (verdict, artifacts.DataVerdictArtifact),
            "backbone": (backbone, artifacts.BackboneArtifact),
        }
        for name, (channel, kind) in kinds.items():
            if channel is not None:
                # TFX's Trainer makes its own spec; this one has inputs more.
                self.spec.INPUTS = {**self.spec.INPUTS, name: ChannelParameter(type=kind)}
                self.spec.inputs[name] = channel

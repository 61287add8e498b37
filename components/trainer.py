"""TFX's Trainer, which also takes a backbone to fine-tune, and leaves out the examples that the data gate says leak."""

from pathlib import Path

from tfx import types
from tfx.components import Trainer as TfxTrainer
from tfx.components.trainer import executor
from tfx.dsl.components.base import executor_spec
from tfx.types.component_spec import ChannelParameter

from components import artifacts
from components.backbone import FILE as BACKBONE
from components.data_bounds import LEAVE_OUT

_FILES = {"verdict": ("leave_out", LEAVE_OUT), "backbone": ("backbone", BACKBONE)}


class Executor(executor.GenericExecutor):
    """Adds `leave_out` and `backbone`, paths of files, to the custom config where there are such inputs."""

    def _GetFnArgs(self, input_dict, output_dict, exec_properties):
        arguments = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        for name, (key, file) in _FILES.items():
            for artifact in input_dict.get(name, []):
                arguments.custom_config = {**arguments.custom_config, key: str(Path(artifact.uri) / file)}
        return arguments


class Trainer(TfxTrainer):
    """See `Executor`. verdict: the data gate's, or None to leave nothing out; backbone: what to fine-tune, or None to
    train from scratch; the rest is TFX's."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, verdict: types.BaseChannel | None, backbone: types.BaseChannel | None, **inputs):
        super().__init__(**inputs)
        kinds = {"verdict": (verdict, artifacts.DataVerdict), "backbone": (backbone, artifacts.Backbone)}
        for name, (channel, kind) in kinds.items():
            if channel is not None:
                # TFX's Trainer makes its own spec; this one has inputs more.
                self.spec.INPUTS = {**self.spec.INPUTS, name: ChannelParameter(type=kind)}
                self.spec.inputs[name] = channel

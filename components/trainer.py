"""TFX's Trainer, which also leaves out the examples that the data gate says leak."""

from pathlib import Path

from tfx import types
from tfx.components import Trainer as TfxTrainer
from tfx.components.trainer import executor
from tfx.dsl.components.base import executor_spec
from tfx.types.component_spec import ChannelParameter

from components import artifacts
from components.data_bounds import LEAVE_OUT


class Executor(executor.GenericExecutor):
    """Adds `leave_out`, the path of a file, to the custom config where there is a verdict to follow."""

    def _GetFnArgs(self, input_dict, output_dict, exec_properties):
        arguments = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        for verdict in input_dict.get("verdict", []):
            arguments.custom_config = {**arguments.custom_config, "leave_out": str(Path(verdict.uri) / LEAVE_OUT)}
        return arguments


class Trainer(TfxTrainer):
    """See `Executor`. verdict: the data gate's, or None to leave nothing out; the rest is TFX's."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, verdict: types.BaseChannel | None, **inputs):
        super().__init__(**inputs)
        if verdict is not None:
            # TFX's Trainer makes its own spec; this one has an input more.
            self.spec.INPUTS = {**self.spec.INPUTS, "verdict": ChannelParameter(type=artifacts.DataVerdict)}
            self.spec.inputs["verdict"] = verdict

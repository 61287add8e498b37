"""TFX's Trainer with more inputs: statistics of the images, a backbone to fine-tune, and a verdict on the data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components import Trainer as TfxTrainer
from tfx.components.trainer import executor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import artifact_utils
from tfx.types.component_spec import ChannelParameter

from components import artifacts
from components.data.gate.bounds import LEAVE_OUT
from components.data.statistics.figures import read_figures
from components.model.backbone import ACCEPTED_CLASSES
from components.model.backbone import FILE as BACKBONE
from components.model.serving_folder import serving_now
from components.model.workers import launcher
from components.model.workers import train as train_with_workers
from trainer.settings import TrainingSettings
from trainer.warm_start import WARM_START, read
from trainer.worker import Job

_KINDS = {
    "image_statistics": artifacts.ImageStatisticsArtifact,
    "verdict": artifacts.DataVerdictArtifact,
    "backbone": artifacts.BackboneArtifact,
}
_FILES = {"verdict": ("leave_out", LEAVE_OUT), "backbone": ("backbone", BACKBONE)}


def run_fn(fn_args: FnArgs) -> None:
    """Train a model as `trainer.run.run_fn` does, with several worker processes if the settings ask for them.

    Args:
        fn_args: See `trainer.run.run_fn`. With several workers, `custom_config` also has an entry `workers`, the folder
            for the file of the job and the logs.
    """
    config = fn_args.custom_config
    count = TrainingSettings.model_validate_json(config["training"]).workers
    if count == 1:
        from trainer.run import run_fn as train_in_this_process

        train_in_this_process(fn_args)
        return

    def make_job(workers: list[str]) -> Job:
        return Job(
            workers=workers,
            transform_output=fn_args.transform_output,
            schema_path=fn_args.schema_path,
            train_files=fn_args.train_files,
            eval_files=fn_args.eval_files,
            serving_model_dir=fn_args.serving_model_dir,
            model_run_dir=fn_args.model_run_dir,
            base_model=fn_args.base_model,
            hyperparameters=fn_args.hyperparameters,
            custom_config=config,
        )

    train_with_workers(make_job, count, Path(config["workers"]), launcher.get()())


class Executor(executor.GenericExecutor):
    """TFX's executor with more entries in the custom config, which `run_fn` reads.

    `mean` and `std` are those of the pixels of the training images, from the input `image_statistics`. `leave_out` and
    `backbone` are the paths of files in the inputs `verdict` and `backbone`, if there are such inputs.
    `accepted_classes` are the classes of a backbone that is not trained.
    `workers` is a folder below the logs of the run, if there are several workers.
    `base_version` is the version of the model that a warm start begins with. After a warm start, a property of the new
    model records which classes were taken over.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Train the model, and record the classes of a warm start.

        Args:
            input_dict: The inputs of TFX's Trainer, and `image_statistics`, `verdict` and `backbone`.
            output_dict: `model` and `model_run`.
            exec_properties: The parameters of TFX's Trainer.
        """
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
        arguments.custom_config = {**arguments.custom_config, **training_inputs(input_dict)}
        for backbone in input_dict.get("backbone", []):
            if backbone.has_custom_property(ACCEPTED_CLASSES):
                names = json.loads(backbone.get_string_custom_property(ACCEPTED_CLASSES))
                arguments.custom_config = {**arguments.custom_config, "accepted_classes": names}
        for model in input_dict.get("base_model", []):
            serving = serving_now(Path(arguments.custom_config["serving"]))
            if serving and serving.model.identifies(model):
                arguments.custom_config = {**arguments.custom_config, "base_version": serving.version}
        if "logs" in arguments.custom_config:
            assert self._context is not None
            folder = Path(arguments.custom_config["logs"], self._context.pipeline_run_id, "Trainer-workers")
            arguments.custom_config = {**arguments.custom_config, "workers": str(folder)}
        return arguments


def training_inputs(input_dict: Mapping[str, list[types.Artifact]]) -> dict[str, Any]:
    """Return the entries of the custom config from the inputs `image_statistics`, `verdict` and `backbone`."""
    measured = read_figures(Path(artifact_utils.get_single_uri(input_dict["image_statistics"]))).splits["train"]
    files = {
        key: str(Path(artifact.uri) / file)
        for name, (key, file) in _FILES.items()
        for artifact in input_dict.get(name, [])
    }
    return {"mean": measured.mean, "std": measured.spread, **files}


def add_inputs(component: base_component.BaseComponent, inputs: Mapping[str, types.BaseChannel | None]) -> None:
    """Add the inputs that `training_inputs` reads to a component of TFX.

    Args:
        component: The component. TFX creates its specification itself, so inputs can only be added afterwards.
        inputs: Channels by name. None: the component does not get the input.
    """
    for name, channel in inputs.items():
        if channel is not None:
            component.spec.INPUTS = {**component.spec.INPUTS, name: ChannelParameter(type=_KINDS[name])}
            component.spec.inputs[name] = channel


class Trainer(TfxTrainer):
    """TFX's Trainer with the inputs `image_statistics`, `verdict` and `backbone`.

    Args:
        image_statistics: Output of ImageStatistics, with the mean and standard deviation of the pixels.
        verdict: Verdict of the data gate, with the examples to leave out. None: no example is left out.
        backbone: Backbone to fine-tune. None: training starts from scratch, or from `base_model`.
        **inputs: Arguments of TFX's Trainer.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        image_statistics: types.BaseChannel,
        verdict: types.BaseChannel | None,
        backbone: types.BaseChannel | None,
        **inputs: object,
    ) -> None:
        super().__init__(**inputs)
        add_inputs(self, {"image_statistics": image_statistics, "verdict": verdict, "backbone": backbone})

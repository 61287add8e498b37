"""TFX's Tuner with Optuna in place of KerasTuner, and the inputs of our Trainer."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components import Tuner as TfxTuner
from tfx.components.trainer import fn_args_utils
from tfx.dsl.components.base import base_executor, executor_spec
from tfx.proto import trainer_pb2
from tfx.types import artifact_utils

from components.data.span_properties import DATA_PROPERTIES, data_digest
from components.model import tuning_record
from components.model.trainer import add_inputs, training_inputs
from trainer.run import WITHOUT_EFFECT
from trainer.search_space import TrialSettings, TuneSettings
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.trial_messages import Job
from trainer.trials import best, write_trials
from trainer.tune import JOURNAL, remove_checkpoints_of_others, search, study_name


class Executor(base_executor.BaseExecutor):
    """Executor that runs or continues the study, and writes its result as TFX's executor does.

    Both outputs are TFX's standard artifacts. `best_hyperparameters` contains the values in the format of KerasTuner,
    which TFX's Trainer reads, and `tuner_results` the table of all trials and the study. The study itself is below
    `studies`, because TFX deletes the outputs of a step that fails.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Search the settings.

        Args:
            input_dict: The inputs of TFX's Tuner, and `image_statistics` and `verdict`.
            output_dict: `best_hyperparameters` and `tuner_results`.
            exec_properties: The parameters of TFX's Tuner. The custom config has the settings `model`, `augment`,
                `training` and `tune` as JSON, the folder `studies` and the digest `code` of the code of a trial.

        Raises:
            RuntimeError: If all trials failed.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        arguments = fn_args_utils.get_common_fn_args(input_dict, exec_properties)
        config = {**arguments.custom_config, **training_inputs(input_dict)}
        settings = TrialSettings(
            ModelSettings.model_validate_json(config["model"]),
            AugmentSettings.model_validate_json(config["augment"]),
            TrainingSettings.model_validate_json(config["training"]),
        )
        tune = TuneSettings.model_validate_json(config["tune"])
        job = Job(
            settings,
            {name: config[name] for name in ("mean", "std", "leave_out") if name in config},
            arguments.schema_path,
            arguments.transform_graph_path,
            arguments.train_files,
            arguments.eval_files,
        )
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        leave_out = Path(config["leave_out"]).read_bytes() if "leave_out" in config else b""
        space = tuning_record.space_text(tune)
        name = study_name(
            {
                "model": settings.model.model_dump_json(),
                "augment": settings.augment.model_dump_json(),
                "training": settings.training.model_dump_json(exclude=WITHOUT_EFFECT | {"use_val"}),
                "epochs": str(tune.epochs),
                "space": space,
                "code": config["code"],
                "data": data_digest(*map(examples.get_string_custom_property, DATA_PROPERTIES)),
                "leave_out": hashlib.sha256(leave_out).hexdigest(),
            }
        )
        folder = Path(config["studies"], name)
        remove_checkpoints_of_others(folder)
        trials = search(job, tune, folder)
        winner = best(trials)
        assert winner and winner.accuracy is not None  # the first trials are not pruned, and not all have failed

        hyperparameters = artifact_utils.get_single_instance(output_dict["best_hyperparameters"])
        Path(hyperparameters.uri).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"space": [], "values": winner.values})
        Path(hyperparameters.uri, tuning_record.FILE).write_text(text, "utf-8")
        hyperparameters.set_string_custom_property(tuning_record.VALUES, json.dumps(winner.values))
        hyperparameters.set_string_custom_property(tuning_record.SPACE, space)
        hyperparameters.set_string_custom_property(tuning_record.RUN, self._context.pipeline_run_id)
        hyperparameters.set_float_custom_property(tuning_record.ACCURACY, winner.accuracy)
        hyperparameters.set_int_custom_property(tuning_record.TRIAL, winner.number)
        hyperparameters.set_int_custom_property(tuning_record.TRIALS, len(trials))
        hyperparameters.set_float_custom_property(tuning_record.SECONDS, sum(trial.seconds for trial in trials))
        results = Path(artifact_utils.get_single_uri(output_dict["tuner_results"]))
        write_trials(trials, results)
        shutil.copyfile(folder / JOURNAL, results / JOURNAL)


class Tuner(TfxTuner):
    """TFX's Tuner with the inputs `image_statistics` and `verdict`.

    Args:
        examples: Examples with the splits `train` and `val`.
        schema: Schema with the class names.
        transform_graph: Graph that decodes the images.
        image_statistics: Output of ImageStatistics, with the mean and standard deviation of the pixels.
        verdict: Verdict of the data gate, with the examples to leave out. None: no example is left out.
        custom_config: Entries of the custom config, see `Executor`.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        schema: types.BaseChannel,
        transform_graph: types.BaseChannel,
        image_statistics: types.BaseChannel,
        verdict: types.BaseChannel | None,
        custom_config: dict[str, Any],
    ) -> None:
        super().__init__(
            examples=examples,
            schema=schema,
            transform_graph=transform_graph,
            tuner_fn="trainer.tune.search",
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=["val"]),
            custom_config=custom_config,
        )
        add_inputs(self, {"image_statistics": image_statistics, "verdict": verdict})

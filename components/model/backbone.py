"""Node that reads, checks and copies the pretrained ViT of a fine-tuning, whose source may change or disappear."""

import json
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import artifacts
from components.errors import DataRefused
from components.model.serving_folder import RECORD, problems, read_record
from trainer.backbone import class_names, digest, load_backbone
from trainer.settings import FinetuneSettings, ModelSettings

FILE = "backbone.keras"
# Property of the artifact if the backbone is accepted without training: its class names as JSON, or an empty list.
ACCEPTED_CLASSES = "accepted_classes"


class Executor(base_executor.BaseExecutor):
    """Executor that writes the backbone as `backbone.keras`, whatever its source is.

    The properties of the artifact record the origin: `source` and `content_digest`. If the source is a pushed model,
    `version`, `run_id` and `data_digest` record its version, the run that trained it and the data of that run.
    `accepted_classes` records the class names of a backbone that is accepted without training.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Load the backbone and write it to the artifact.

        Args:
            input_dict: Not used.
            output_dict: `backbone`.
            exec_properties: The parameters of `BackboneSpec`.

        Raises:
            DataRefused: If the source cannot be used, or a pushed model was changed after the push.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        source = exec_properties["source"]
        backbone = artifact_utils.get_single_instance(output_dict["backbone"])
        try:
            if (Path(source) / RECORD).is_file():
                if changed := problems(Path(source)):
                    raise DataRefused(
                        f"{'; '.join(changed)}: this is not the model that was pushed; use another backbone"
                    )
                record = read_record(Path(source))
                backbone.set_string_custom_property("version", str(record.version))
                backbone.set_string_custom_property("run_id", record.run_id)
                backbone.set_string_custom_property("data_digest", record.data_digest)
            finetune = FinetuneSettings.model_validate_json(exec_properties["finetune"])
            model = load_backbone(source, ModelSettings.model_validate_json(exec_properties["model"]), finetune)
            if not finetune.trains:
                backbone.set_string_custom_property(ACCEPTED_CLASSES, json.dumps(class_names(source)))
        except (FileNotFoundError, ValueError) as error:
            raise DataRefused(str(error)) from error
        backbone.set_string_custom_property("source", source)
        backbone.set_string_custom_property("content_digest", digest(model))
        Path(backbone.uri).mkdir(parents=True, exist_ok=True)
        model.save(Path(backbone.uri) / FILE)


class BackboneSpec(ComponentSpec):
    """Specification of `Backbone`."""

    PARAMETERS: ClassVar = {
        "source": ExecutionParameter(type=str),
        "content": ExecutionParameter(type=str),
        "model": ExecutionParameter(type=str),
        "finetune": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"backbone": ChannelParameter(type=artifacts.BackboneArtifact)}


class Backbone(base_component.BaseComponent):
    """Component that reads the backbone of a fine-tuning.

    Args:
        source: Source of the backbone, as for `trainer.backbone.load_backbone`. A path must be absolute.
        content: sha256 of the content of the source, so that a changed source is not taken from the cache. Empty if it
            cannot be computed.
        model: Sizes of the model, if the source is a file of weights.
        finetune: Mean and std of the pixels, if the source is a file of weights.
    """

    SPEC_CLASS = BackboneSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, source: str, content: str, model: ModelSettings, finetune: FinetuneSettings) -> None:
        super().__init__(
            BackboneSpec(
                source=source,
                content=content,
                model=model.model_dump_json(),
                finetune=finetune.model_dump_json(),
                backbone=types.Channel(type=artifacts.BackboneArtifact),
            )
        )

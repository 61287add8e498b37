"""The pretrained ViT that a fine-tuning starts from, checked and copied: its source may change or disappear."""

from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import artifacts
from components.errors import DataRefused
from components.model.serving_folder import RECORD, problems, read_record
from trainer.backbone import digest, load_backbone
from trainer.settings import FinetuneSettings, ModelSettings

FILE = "backbone.keras"


class Executor(base_executor.BaseExecutor):
    """Writes the backbone as `backbone.keras`, whatever it was read from.

    What it was is kept in the artifact's properties: `source`, `content_digest`, and of a pushed model `version`,
    `run_id` and `data_digest`, its own run and data. Raises DataRefused where the source cannot be used.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        source = exec_properties["source"]
        backbone = artifact_utils.get_single_instance(output_dict["backbone"])
        try:
            if (Path(source) / RECORD).is_file():
                if changed := problems(Path(source)):
                    raise DataRefused(f"{'; '.join(changed)}: this is not the model that was pushed; name another")
                record = read_record(Path(source))
                backbone.set_string_custom_property("version", str(record.version))
                backbone.set_string_custom_property("run_id", record.run_id)
                backbone.set_string_custom_property("data_digest", record.data_digest)
            model = load_backbone(
                source,
                ModelSettings.model_validate_json(exec_properties["model"]),
                FinetuneSettings.model_validate_json(exec_properties["finetune"]),
            )
        except (FileNotFoundError, ValueError) as error:
            raise DataRefused(str(error)) from error
        backbone.set_string_custom_property("source", source)
        backbone.set_string_custom_property("content_digest", digest(model))
        Path(backbone.uri).mkdir(parents=True, exist_ok=True)
        model.save(Path(backbone.uri) / FILE)


class BackboneSpec(ComponentSpec):
    PARAMETERS: ClassVar = {
        "source": ExecutionParameter(type=str),
        "content": ExecutionParameter(type=str),
        "model": ExecutionParameter(type=str),
        "finetune": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"backbone": ChannelParameter(type=artifacts.BackboneArtifact)}


class Backbone(base_component.BaseComponent):
    """Reads the backbone of a fine-tuning.

    Args:
        source: see `trainer.backbone.load_backbone`; absolute, where it is a path.
        content: sha256 of what is there, for the cache; empty where nobody can say.
        model, finetune: what a file of weights does not say.
    """

    SPEC_CLASS = BackboneSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, source: str, content: str, model: ModelSettings, finetune: FinetuneSettings):
        super().__init__(
            BackboneSpec(
                source=source,
                content=content,
                model=model.model_dump_json(),
                finetune=finetune.model_dump_json(),
                backbone=types.Channel(type=artifacts.BackboneArtifact),
            )
        )

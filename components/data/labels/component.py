"""LabelCheck component, which lists the images of a span whose label is probably wrong."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import artifacts
from components.artifacts import split_folders
from components.data.labels.page import render
from components.data.labels.settings import LabelCheckSettings
from components.data.labels.suspects import (
    FEWEST,
    FIGURES,
    PAGE,
    REASONS,
    SUSPECTS,
    SUSPECTS_SCHEMA,
    LabelFigures,
    assign_folds,
    estimate_wrong,
    find_far,
    find_large_classes,
    find_suspects,
)
from components.data.span_properties import shard_span
from components.data.statistics.component import CONFLICTS
from components.data.statistics.figures import TABLE, ImageFigures, SplitFigures, read_figures
from trainer.folds import Predictions, predict_out_of_fold, small_recipe
from trainer.input import decode_by_framing, load
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings

log = logging.getLogger(__name__)

_COLUMNS = ["split", "id", "label", "shard", "offset", "reason", "digest"]


class Executor(base_executor.BaseExecutor):
    """Executor that predicts the class of every image by a ViT that was not trained on it, and lists the suspects."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the table of suspects, its figures and the page.

        Args:
            input_dict: `examples`, `test_examples` and `statistics`.
            output_dict: `suspects`.
            exec_properties: `settings`, `model`, `augment` and `training`, all in JSON; `checkpoints`, and the digest
                of the code, if it is known.
        """
        settings = LabelCheckSettings.model_validate_json(exec_properties["settings"])
        statistics = Path(artifact_utils.get_single_uri(input_dict["statistics"]))
        measured = read_figures(statistics)
        names = list(measured.splits["train"].labels)
        folders = split_folders([*input_dict["examples"], *input_dict["test_examples"]])
        images = _read_images(statistics, folders, measured)
        if problem := _problem(images, names, settings.folds):
            log.info("labels are not checked: %s", problem)
            suspects = SUSPECTS_SCHEMA.empty_table().to_pandas()
            figures = LabelFigures(problem=problem, folds=settings.folds, epochs=settings.epochs)
        else:
            large = find_large_classes(images, settings.folds)
            labels, folds = images.label.to_numpy(), assign_folds(images, settings.folds)
            predictions = _predict(exec_properties, settings, labels, folds, folders, measured.splits["train"])
            is_far = find_far(predictions.distances, folds)
            conflicts = pd.read_parquet(statistics / CONFLICTS)
            suspects = find_suspects(images, predictions.probabilities, large, is_far, conflicts, names)
            figures = LabelFigures(
                images=len(images),
                folds=settings.folds,
                epochs=settings.epochs,
                accuracy=float((predictions.probabilities.argmax(axis=1) == labels).mean()),
                wrong=estimate_wrong(labels, predictions.probabilities, large),
                too_small=tuple(name for label, name in enumerate(names) if label not in large),
                suspects={reason: int((suspects.reason == reason).sum()) for reason in REASONS},
            )
        artifact = artifact_utils.get_single_instance(output_dict["suspects"])
        artifact.span = measured.span
        folder = Path(artifact.uri)
        pa.parquet.write_table(pa.Table.from_pandas(suspects, SUSPECTS_SCHEMA, preserve_index=False), folder / SUSPECTS)
        (folder / FIGURES).write_text(figures.model_dump_json(indent=1) + "\n", "utf-8")
        (folder / PAGE).write_text(render(measured.span, figures, suspects, folders), "utf-8")


def _read_images(statistics: Path, folders: dict[str, Path], measured: ImageFigures) -> pd.DataFrame:
    """Return the table of images, and their spans, in the order in which `trainer.input.load` reads the examples."""
    table = pa.dataset.dataset(statistics / TABLE).to_table(columns=_COLUMNS)
    # As categories, texts that repeat take only a number for each image.
    images = table.to_pandas(categories=["split", "shard", "reason"])
    shards = images[["split", "shard"]].drop_duplicates()
    shards["file"] = [str(folders[split] / shard) for split, shard in shards.itertuples(index=False)]
    shards = shards.sort_values("file").reset_index(drop=True)
    shards["span"] = [
        shard_span(shard, measured.gate_span if split == "test" else measured.span)
        for split, shard in shards[["split", "shard"]].itertuples(index=False)
    ]
    shards["place"] = shards.index
    images = images.merge(shards.drop(columns="file"), "left", ["split", "shard"])
    return images.sort_values(["place", "offset"]).drop(columns="place").reset_index(drop=True)


def _problem(images: pd.DataFrame, names: Sequence[str], folds: int) -> str:
    """Return why the labels of these images cannot be checked, or an empty string.

    Two classes with enough images also ensure that each fold has images, and that each training has some of a class.
    """
    if unusable := int(((images.reason != "") | ~images.label.between(0, len(names) - 1)).sum()):
        return f"{unusable:,} images do not decode or have the label of no class"
    if (large := len(find_large_classes(images, folds))) < 2:
        return (
            f"{large} of {len(names):,} classes have at least {max(FEWEST, 2 * folds)} different images, and at "
            "least 2 classes must"
        )
    return ""


def _predict(
    exec_properties: dict[str, Any],
    settings: LabelCheckSettings,
    labels: np.ndarray,
    folds: np.ndarray,
    folders: dict[str, Path],
    measured: SplitFigures,
) -> Predictions:
    """Decode the images, and predict their classes out of fold."""
    recipe = small_recipe(
        ModelSettings.model_validate_json(exec_properties["model"]),
        AugmentSettings.model_validate_json(exec_properties["augment"]),
        TrainingSettings.model_validate_json(exec_properties["training"]),
        settings.epochs,
        images=len(folds) - int(np.bincount(folds).max()),
    )
    framing = recipe.model.framing
    split = load([str(folder / "*") for folder in folders.values()], decode_by_framing(framing), framing.size)
    assert (split.labels == labels).all(), "the examples are in another order than the table of images"
    inputs = [
        split.digest(),
        folds.tobytes().hex(),
        *(group.model_dump_json() for group in recipe),
        exec_properties.get("digest", ""),
    ]
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
    checkpoints = Path(exec_properties["checkpoints"], f"{digest}-labels")
    return predict_out_of_fold(split, folds, len(measured.labels), recipe, measured.mean, measured.spread, checkpoints)


class LabelCheckSpec(ComponentSpec):
    """Inputs, output and parameters of LabelCheck."""

    PARAMETERS: ClassVar = {
        name: ExecutionParameter(type=str) for name in ("settings", "model", "augment", "training", "checkpoints")
    }
    INPUTS: ClassVar = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "test_examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=artifacts.ImageStatisticsArtifact),
    }
    OUTPUTS: ClassVar = {"suspects": ChannelParameter(type=artifacts.LabelSuspectsArtifact)}


class LabelCheck(base_component.BaseComponent):
    """Component that lists the images of a span and of the gate's test set whose label is probably wrong.

    Args:
        examples: raw examples of train and val.
        test_examples: raw examples of the gate span's test split.
        statistics: ImageStatistics of both.
        settings: settings of the check.
        model: settings of the model, of which the check uses the input and the size of patches, as JSON.
        augment: settings of the augmentation, of which the check uses `flip`, as JSON.
        training: settings of the training, of which the check uses the precision and the seed, as JSON.
        checkpoints: folder below which the checkpoints are written.
    """

    SPEC_CLASS = LabelCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        test_examples: types.BaseChannel,
        statistics: types.BaseChannel,
        settings: LabelCheckSettings,
        model: str,
        augment: str,
        training: str,
        checkpoints: str,
    ) -> None:
        super().__init__(
            LabelCheckSpec(
                examples=examples,
                test_examples=test_examples,
                statistics=statistics,
                settings=settings.model_dump_json(),
                model=model,
                augment=augment,
                training=training,
                checkpoints=checkpoints,
                suspects=types.Channel(type=artifacts.LabelSuspectsArtifact),
            )
        )

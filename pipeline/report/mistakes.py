"""Attention maps of a run's model for some of its mistakes, drawn as by `vitpipe explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tfx.utils import path_utils

from components.errors import DataRefused, UsageError
from pipeline.drawing import attention_maps
from pipeline.drawing.explain_images import figures
from pipeline.explainable_model import open_model
from pipeline.metadata.records import Artifact
from pipeline.report.model import ExplainedImage, Map
from trainer.explain import layout


def explain_mistakes(
    model: Artifact | None, classes: list[str], images: Sequence[bytes]
) -> tuple[list[ExplainedImage], str]:
    """Return the attention maps of some images.

    Args:
        model: the model of the run; None if it has none.
        classes: names of the classes, in index order.
        images: PNG or JPEG files that the model decodes.

    Returns:
        The maps of each image and an empty text; or no maps and the reason, if the model cannot be loaded.
    """
    if model is None:
        return [], "There are no attention maps of the mistakes: the run has no model."
    folder = Path(path_utils.serving_model_path(model.uri))
    if not folder.is_dir():
        return [], f"There are no attention maps of the mistakes: the model of this run no longer exists ({model.uri})."
    try:
        opened_model = open_model(folder, classes)
    except (DataRefused, UsageError) as error:
        return [], f"There are no attention maps of the mistakes, because the model cannot be explained: {error}."
    explanation = opened_model.explain(images)
    grid, _ = layout(explanation.attention.shape[-1])
    rows = figures(opened_model, [str(place) for place in range(len(images))], explanation)
    depth = explanation.attention.shape[1]
    views = {"rollout": f"rollout, blocks 1 to {depth}", "mean": f"block {depth}, mean of heads"}

    def map_of(row: dict[str, Any], column: str) -> Map:
        at = row["columns"].index(column)
        patches = np.array(row["patches"][-1][at], "float32")
        most = divmod(int(patches.argmax()), grid)
        return Map(
            name=views[column],
            source=attention_maps.data_uri(attention_maps.colour_map(patches, opened_model.size)),
            most=float(patches.max()),
            row=most[0] + 1,
            column=most[1] + 1,
            entropy=row["entropy"][-1][at],
        )

    return [
        ExplainedImage(
            source=attention_maps.data_uri(Image.fromarray(pixels)),
            grid=grid,
            maps=[map_of(row, column) for column in views],
        )
        for row, pixels in zip(rows, explanation.pixels, strict=True)
    ], ""

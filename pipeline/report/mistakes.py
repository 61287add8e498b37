"""Attention of a run's model in some of its mistakes, drawn as `vitpipe explain` draws it."""

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
    """Of each image, in order; where the model cannot be asked, of none, and a sentence that says why.

    model: that the Trainer of the run put out. images: PNG or JPEG files that it decodes.
    """
    if model is None:
        return [], "No mistake is explained: the run has no model."
    folder = Path(path_utils.serving_model_path(model.uri))
    if not folder.is_dir():
        return [], f"No mistake is explained: the model of this run is not there any more ({model.uri})."
    try:
        opened = open_model(folder, classes)
    except (DataRefused, UsageError) as error:
        return [], f"No mistake is explained, for `vitpipe explain` says: {error}."
    found = opened.explain(images)
    grid, _ = layout(found.attention.shape[-1])
    rows = figures(opened, [str(place) for place in range(len(images))], found)
    depth = found.attention.shape[1]
    views = {"rollout": f"rollout, blocks 1 to {depth}", "mean": f"block {depth}, mean of heads"}

    def map_of(row: dict[str, Any], column: str) -> Map:
        at = row["columns"].index(column)
        patches = np.array(row["patches"][-1][at], "float32")
        most = divmod(int(patches.argmax()), grid)
        return Map(
            name=views[column],
            source=attention_maps.data_uri(attention_maps.colour_map(patches, opened.size)),
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
        for row, pixels in zip(rows, found.pixels, strict=True)
    ], ""

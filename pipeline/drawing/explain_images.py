"""Page that shows the attention of every block and head over some images, and the model's answers."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.console.logs import display_path
from pipeline.drawing import attention_maps
from pipeline.drawing.document import document
from pipeline.explainable_model import Explanation, Model
from trainer import explain

PAGE = "explain.html"


def columns(heads: int) -> list[str]:
    """Return the names of the maps of each block, in the order of `views`."""
    return [*(f"head {head + 1}" for head in range(heads)), "mean", "rollout"]


def views(attention: np.ndarray) -> np.ndarray:
    """Return the attention of each head, their mean, and the rollout up to each block.

    The shape is [..., depth, heads + 2, tokens, tokens] for attention of the shape [..., depth, heads, tokens, tokens].
    """
    mean, rollout = attention.mean(-3, keepdims=True), explain.rollout(attention)[..., None, :, :]
    return np.concatenate([attention, mean, rollout], axis=-3)


def figures(model: Model, names: list[str], explanation: Explanation) -> list[dict[str, Any]]:
    """Return the figures of each image that decodes.

    Args:
        model: the model.
        names: names of the images that decode.
        explanation: the model's answers and attention.

    Returns:
        A mapping for each image: its name, the class and probabilities of the answer, the names of the columns, and
        lists [depth][heads + 2] of attention to the patches, attention to itself, entropy in bits and mean distance in
        pixels.
    """
    rows = []
    for name, probabilities, attention in zip(names, explanation.probabilities, explanation.attention, strict=True):
        all_views = views(attention)
        rows.append(
            {
                "image": name,
                "class": model.classes[probabilities.argmax()],
                "probabilities": dict(zip(model.classes, map(float, probabilities), strict=True)),
                "columns": columns(attention.shape[1]),
                "patches": explain.patch_attention(all_views).tolist(),
                "to_itself": explain.cls_self_attention(all_views).tolist(),
                "entropy": explain.entropy(explain.patch_attention(all_views)).tolist(),
                "distance": explain.attention_distance(all_views, model.patch_size).tolist(),
            }
        )
    return rows


def page(model: Model, rows: list[dict[str, Any]], explanation: Explanation) -> str:
    """Return the page as HTML.

    Args:
        model: the model.
        rows: the figures of each image, from `figures`.
        explanation: the model's answers and attention.
    """
    grid, _ = explain.layout(explanation.attention.shape[-1])
    images = []
    for row, pixels in zip(rows, explanation.pixels, strict=True):
        maps = np.array(row["patches"], "float32")
        images.append(
            row
            | {
                "source": attention_maps.data_uri(attention_maps.enlarge(pixels)),
                "maps": [
                    [attention_maps.data_uri(attention_maps.colour_map(patches, model.size)) for patches in block]
                    for block in maps
                ],
                "patches": np.round(maps, 4).tolist(),
            }
        )
    return document(
        Path(__file__).with_suffix(".html"),
        model=model,
        folder=display_path(model.path),
        shown=images,
        grid=grid,
        legend=attention_maps.legend(),
        most_entropy=float(np.log2(grid**2)),
        even_distance=float(explain.patch_distances(grid, model.patch_size).mean()),
    )


def write(model: Model, rows: list[dict[str, Any]], explanation: Explanation, out: Path) -> Path:
    """Write the page, and a folder for each image with its pictures as PNG files.

    Args:
        model: the model.
        rows: the figures of each image, from `figures`.
        explanation: the model's answers and attention.
        out: folder to write to.

    Returns:
        Path of the page.
    """
    grid, _ = explain.layout(explanation.attention.shape[-1])
    for number, (row, pixels) in enumerate(zip(rows, explanation.pixels, strict=True), start=1):
        folder = out / f"{number}-{Path(row['image']).stem}"
        folder.mkdir(parents=True, exist_ok=True)
        attention_maps.enlarge(pixels).save(folder / "image.png")
        attention_maps.draw_grid(pixels, grid).save(folder / "patches.png")
        for block, of_block in enumerate(np.array(row["patches"], "float32"), start=1):
            for column, patches in zip(row["columns"], of_block, strict=True):
                name = f"block-{block:02d}-{column.replace(' ', '-')}.png"
                attention_maps.overlay(pixels, patches).save(folder / name)
    file = out / PAGE
    file.write_text(page(model, rows, explanation), "utf-8")
    return file

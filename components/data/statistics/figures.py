"""Figures measured on the images of a span. Imports neither TFX nor TensorFlow."""

import numpy as np
import pandas as pd
from pydantic import Field

from components.data.ingest.source import SPLITS
from trainer.settings import Group

# Edges of the histograms, the same for every span, so that two can be compared.
BRIGHTNESS = np.linspace(0, 256, 17)  # mean luma of an image
SHARPNESS = np.arange(0, 21)  # log2(1 + variance of the Laplacian)
SIDES = np.arange(0, 15, 0.5)  # log2 of the geometric mean of width and height in pixels


class SplitFigures(Group):
    """Of one split. Colours are of the pixels at the model's size, 0 to 255, red, green and blue."""

    images: int
    bytes: int  # encoded
    undecodable: dict[str, int]  # by reason
    outside_labels: int  # that are no class
    labels: dict[str, int]  # by class, each of them
    formats: dict[str, int]  # by format and mode
    sizes: dict[str, int]  # by width x height, the ten most frequent
    different_sizes: int
    smallest_side: int | None  # pixels
    mean: list[float]
    spread: list[float]  # standard deviation
    brightness: list[int]
    sharpness: list[int]
    sides: list[int]
    duplicates: int  # images whose pixels an earlier image of the split has
    remarks: dict[str, int] = Field({})  # number of images by remark, see `components.data.ingest.images.REMARKS`


class Leak(Group):
    """How many images of `target` stand in `source` too: with equal pixels, or showing nearly the same."""

    source: str
    target: str
    exact: int
    near: int


class Conflicts(Group):
    """Numbers of images whose picture also has another label, with equal pixels or with nearly equal ones."""

    exact: int = 0
    near: int = 0


class ImageFigures(Group):
    span: int
    gate_span: int  # of the test split
    image_size: int  # pixels a side at which the model sees an image
    splits: dict[str, SplitFigures]
    repeated_ids: int  # within the span, and within the test split
    leaks: list[Leak]
    conflicts: Conflicts = Conflicts()


def of_images(
    images: pd.DataFrame, names: list[str], leaks: list[Leak], span: int, gate_span: int, image_size: int
) -> ImageFigures:
    """What a table of images says on the whole. names: of the classes, in index order."""
    return ImageFigures(
        span=span,
        gate_span=gate_span,
        image_size=image_size,
        splits={split: _split_figures(images[images.split == split], names) for split in SPLITS},
        repeated_ids=int(repeated_ids(images).sum()),
        leaks=leaks,
    )


def without_images(figures: ImageFigures, images: pd.DataFrame, leaking: pd.Series) -> ImageFigures:
    """The figures of a span whose leaking examples (bool, by row of `images`) are left out: fewer labels, no leaks."""
    splits = {}
    for split, of in figures.splits.items():
        labels = images.label[leaking & (images.split == split)]
        left = {name: count - int((labels == label).sum()) for label, (name, count) in enumerate(of.labels.items())}
        splits[split] = of.model_copy(update={"images": of.images - len(labels), "labels": left})
    return figures.model_copy(update={"splits": splits, "leaks": []})


def repeated_ids(images: pd.DataFrame) -> pd.Series:
    """bool: whose id an earlier image has. The test set may be of another span, where the same names are no wonder."""
    return pd.DataFrame({"id": images.id, "test": images.split == "test"}).duplicated()


def _split_figures(rows: pd.DataFrame, names: list[str]) -> SplitFigures:
    good = rows[rows.reason == ""]
    mean, mean_square = (
        np.stack(good[name].to_list()).mean(axis=0) if len(good) else np.zeros(3) for name in ("mean", "mean_square")
    )
    inside = rows.label.between(0, len(names) - 1)
    sides = np.sqrt(good.width * good.height)
    width, height = (good[name].astype(int).astype(str) for name in ("width", "height"))  # floats where some have none
    sizes = (width + "x" + height).value_counts()
    return SplitFigures(
        images=len(rows),
        bytes=int(rows.bytes.sum()),
        undecodable=_counts(rows.reason[rows.reason != ""].value_counts()),
        outside_labels=int((~inside).sum()),
        labels=dict(zip(names, np.bincount(rows.label[inside], minlength=len(names)).tolist(), strict=True)),
        formats=_counts(good.format.value_counts()),
        sizes=_counts(sizes.head(10)),
        different_sizes=len(sizes),
        smallest_side=int(good[["width", "height"]].min(axis=None)) if len(good) else None,
        mean=mean.tolist(),
        spread=np.sqrt(np.maximum(mean_square - mean**2, 0)).tolist(),
        brightness=np.histogram(good.brightness, BRIGHTNESS)[0].tolist(),
        sharpness=np.histogram(np.log2(1 + good.sharpness), SHARPNESS)[0].tolist(),
        sides=np.histogram(np.log2(sides), SIDES)[0].tolist(),
        duplicates=int(good.digest.duplicated().sum()),
        remarks=_counts(good.remarks.explode().value_counts()),
    )


def _counts(series: pd.Series) -> dict[str, int]:
    return {str(key): int(count) for key, count in series.items()}

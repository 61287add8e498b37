"""Statistics of a span, computed from the table of its images. Imports neither TFX nor TensorFlow."""

from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from components.data.ingest.source import SPLITS
from trainer.framing import Framing, Resize
from trainer.settings import Group

FIGURES = "figures.json"  # the file of an ImageStatistics artifact that holds `ImageFigures`

# Edges of the histogram bins. They are the same for every span, so that spans can be compared.
BRIGHTNESS = np.linspace(0, 256, 17)  # mean luma of an image
SHARPNESS = np.arange(0, 21)  # log2 of 1 + the variance of the Laplacian
SIDES = np.arange(0, 15, 0.5)  # log2 of the geometric mean of width and height, in pixels


class SplitFigures(Group):
    """Statistics of one split.

    The colours are measured on the pixels at the model's size, on a scale of 0 to 255.
    """

    images: int
    bytes: int  # total size of the encoded images
    undecodable: dict[str, int]  # number of images by reason
    outside_labels: int  # examples whose label belongs to no class
    labels: dict[str, int]  # number of images by class, in index order
    formats: dict[str, int]  # number of images by format and colour mode
    sizes: dict[str, int]  # number of images by width x height, for the ten most frequent sizes
    different_sizes: int
    smallest_side: int | None  # pixels; None if no image decodes
    mean: list[float]  # means of red, green and blue
    spread: list[float]  # standard deviation of red, green and blue
    brightness: list[int]  # histogram with the edges BRIGHTNESS
    sharpness: list[int]  # histogram with the edges SHARPNESS
    sides: list[int]  # histogram with the edges SIDES
    duplicates: int  # images with the same pixels as an earlier image of the split
    remarks: dict[str, int] = Field({})  # number of images by remark; see `components.data.ingest.images.REMARKS`


class Leak(Group):
    """Number of images in the split `target` that also appear in the split `source`."""

    source: str
    target: str
    exact: int  # images with equal pixels
    near: int  # images that are nearly equal, but not equal


class Conflicts(Group):
    """Number of images that equal or nearly equal an image with another label."""

    exact: int = 0  # images with equal pixels
    near: int = 0  # images that are nearly equal, but not equal


class ImageFigures(Group):
    """Statistics of train and val of a span, and of test of the gate span."""

    span: int
    gate_span: int  # the span whose test split is measured
    image_size: int  # side in pixels at which the model sees an image
    # How the model sees an image. The defaults are those of spans that were measured before there was a choice.
    resize: Resize = "stretch"
    background: tuple[int, int, int] = (255, 255, 255)
    splits: dict[str, SplitFigures]
    repeated_ids: int  # examples whose id an earlier example has; train and val count together, test on its own
    leaks: list[Leak]
    conflicts: Conflicts = Conflicts()


def read_figures(folder: Path) -> ImageFigures:
    """Read the statistics in the folder of an ImageStatistics artifact."""
    return ImageFigures.model_validate_json((folder / FIGURES).read_text("utf-8"))


def compute_figures(
    images: pd.DataFrame, names: list[str], leaks: list[Leak], span: int, gate_span: int, framing: Framing
) -> ImageFigures:
    """Compute the statistics of a table of images. Conflicts are not counted.

    Args:
        images: a row for each image, as ImageStatistics measures it.
        names: class names in index order.
        leaks: numbers of images that appear in two splits.
        span: number of the span of train and val.
        gate_span: number of the span of test.
        framing: choices by which an image became the model's input.
    """
    return ImageFigures(
        span=span,
        gate_span=gate_span,
        image_size=framing.size,
        resize=framing.resize,
        background=framing.background,
        splits={split: _split_figures(images[images.split == split], names) for split in SPLITS},
        repeated_ids=int(repeated_ids(images).sum()),
        leaks=leaks,
    )


def remove_leaks(figures: ImageFigures, images: pd.DataFrame, leaking: pd.Series) -> ImageFigures:
    """Return the statistics of a span after leaking examples are left out of it.

    Only the numbers of images and of leaks change. The other statistics still include all examples.

    Args:
        figures: statistics of all examples.
        images: the table of images, with the columns split and label.
        leaking: bool, a value for each row of `images`; true if the example is left out.
    """
    splits = {}
    for split, measured in figures.splits.items():
        removed = images.label[leaking & (images.split == split)]
        labels = {
            name: count - int((removed == label).sum()) for label, (name, count) in enumerate(measured.labels.items())
        }
        splits[split] = measured.model_copy(update={"images": measured.images - len(removed), "labels": labels})
    return figures.model_copy(update={"splits": splits, "leaks": []})


def repeated_ids(images: pd.DataFrame) -> pd.Series:
    """Return a boolean series that is true for each image whose id an earlier image has.

    Test images are compared only with each other: the test set may come from another span, which may use the same ids.
    """
    return pd.DataFrame({"id": images.id, "test": images.split == "test"}).duplicated()


def _split_figures(rows: pd.DataFrame, names: list[str]) -> SplitFigures:
    good = rows[rows.reason == ""]
    mean, mean_square = (
        np.stack(good[name].to_list()).mean(axis=0) if len(good) else np.zeros(3) for name in ("mean", "mean_square")
    )
    inside = rows.label.between(0, len(names) - 1)
    sides = np.sqrt(good.width * good.height)
    # The columns are floats if a row of the table has no size.
    width, height = (good[name].astype(int).astype(str) for name in ("width", "height"))
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

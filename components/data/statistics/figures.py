"""Statistics of a span, computed from the table of its images. Imports neither TFX nor TensorFlow."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import Field

from trainer.framing import Resize
from trainer.settings import Group

# Files of an ImageStatistics artifact, besides those in `components.data.statistics.component`.
FIGURES = "figures.json"  # `ImageFigures`
TABLE = "images"  # a folder of Parquet files with a row for each image

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


_UNIT = 2**40  # sums of means are counted in whole parts of this size, so that their order has no influence


@dataclass(frozen=True)
class Totals:
    """Sums over images, which can be added in any order."""

    images: int
    bytes: int
    usable: int
    outside_labels: int
    undecodable: Counter[str]
    formats: Counter[str]
    sizes: Counter[tuple[int, int]]  # width and height
    remarks: Counter[str]
    labels: np.ndarray  # int64 [classes]
    brightness: np.ndarray  # int64 [bins]
    sharpness: np.ndarray  # int64 [bins]
    sides: np.ndarray  # int64 [bins]
    colours: np.ndarray  # int objects [6]: means of red, green and blue, and of their squares, in 1 / _UNIT

    @classmethod
    def of(cls, rows: pd.DataFrame, classes: int) -> Self:
        """Sum up rows of the table of images.

        Args:
            rows: the rows of at most a million images.
            classes: number of classes.
        """
        good = rows[rows.reason == ""]
        inside = rows.label.between(0, classes - 1)
        # The columns are floats if a row of the table has no size.
        width, height = (good[name].to_numpy(np.int64) for name in ("width", "height"))
        colours = np.array([[*mean, *square] for mean, square in zip(good["mean"], good.mean_square, strict=True)])
        whole, part = np.divmod(colours.reshape(-1, 6), 1)
        parts = np.rint(part * _UNIT).astype(np.int64)
        return cls(
            images=len(rows),
            bytes=int(rows.bytes.sum()),
            usable=len(good),
            outside_labels=int((~inside).sum()),
            undecodable=Counter(rows.reason[rows.reason != ""]),
            formats=Counter(good.format),
            sizes=Counter(zip(width.tolist(), height.tolist(), strict=True)),
            remarks=Counter(chain.from_iterable(good.remarks)),
            labels=np.bincount(rows.label[inside], minlength=classes),
            brightness=np.histogram(good.brightness.to_numpy(float), BRIGHTNESS)[0],
            sharpness=np.histogram(np.log2(1 + good.sharpness.to_numpy(float)), SHARPNESS)[0],
            sides=np.histogram(np.log2(np.sqrt(width * height)), SIDES)[0],
            colours=whole.sum(axis=0).astype(int).astype(object) * _UNIT + parts.sum(axis=0).astype(object),
        )

    @classmethod
    def add(cls, totals: Iterable[Self]) -> Self:
        """Add totals of at least one group of images."""
        return reduce(
            lambda one, other: cls(*(getattr(one, field.name) + getattr(other, field.name) for field in fields(cls))),
            totals,
        )

    def figures(self, names: list[str], duplicates: int) -> SplitFigures:
        """Return the statistics of a split.

        Args:
            names: class names in index order.
            duplicates: number of images with the same pixels as an earlier one.
        """
        colours = np.array([int(total) / (_UNIT * max(self.usable, 1)) for total in self.colours])
        mean, mean_square = colours[:3], colours[3:]
        sizes = {f"{width}x{height}": count for (width, height), count in _by_frequency(self.sizes)[:10]}
        return SplitFigures(
            images=self.images,
            bytes=self.bytes,
            undecodable=dict(_by_frequency(self.undecodable)),
            outside_labels=self.outside_labels,
            labels=dict(zip(names, self.labels.tolist(), strict=True)),
            formats=dict(_by_frequency(self.formats)),
            sizes=sizes,
            different_sizes=len(self.sizes),
            smallest_side=min(map(min, self.sizes), default=None),
            mean=mean.tolist(),
            spread=np.sqrt(np.maximum(mean_square - mean**2, 0)).tolist(),
            brightness=self.brightness.tolist(),
            sharpness=self.sharpness.tolist(),
            sides=self.sides.tolist(),
            duplicates=duplicates,
            remarks=dict(_by_frequency(self.remarks)),
        )


def _by_frequency(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def remove_leaks(figures: ImageFigures, removed: Counter[tuple[str, int]]) -> ImageFigures:
    """Return the statistics of a span after leaking examples are left out of it.

    Only the numbers of images and of leaks change. The other statistics still include all examples.

    Args:
        figures: statistics of all examples.
        removed: number of examples that are left out, by split and label.
    """
    splits = {}
    for split, measured in figures.splits.items():
        labels = {name: count - removed[split, label] for label, (name, count) in enumerate(measured.labels.items())}
        images = measured.images - sum(count for (of, _), count in removed.items() if of == split)
        splits[split] = measured.model_copy(update={"images": images, "labels": labels})
    return figures.model_copy(update={"splits": splits, "leaks": []})

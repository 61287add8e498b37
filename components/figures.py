"""What was measured of the images of a span, as numbers. Knows no TFX and no TensorFlow."""

import numpy as np

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


class Leak(Group):
    """How many images of `target` stand in `source` too: with equal pixels, or showing nearly the same."""

    source: str
    target: str
    exact: int
    near: int


class ImageFigures(Group):
    span: int
    gate_span: int  # of the test split
    image_size: int  # pixels a side at which the model sees an image
    splits: dict[str, SplitFigures]
    repeated_ids: int  # within the span, and within the test split
    leaks: list[Leak]

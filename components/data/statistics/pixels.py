"""Measures of decoded images, in parts that fit into the cache of a core."""

from typing import NamedTuple, Self

import numpy as np

_LUMA = 0.299, 0.587, 0.114  # weights of red, green and blue in Pillow's grey (ITU-R BT.601)
_PART = 2**16  # values, three for each pixel, that are measured at a time; always at least one image


class PixelMeasures(NamedTuple):
    """Measures of N images. The last axis of `mean`, `mean_square`, `low` and `high` is red, green and blue."""

    mean: np.ndarray  # float64 [N, 3]
    mean_square: np.ndarray  # float64 [N, 3]
    low: np.ndarray  # uint8 [N, 3], the smallest value
    high: np.ndarray  # uint8 [N, 3], the largest value
    brightness: np.ndarray  # float64 [N], mean of the luma, 0 to 255
    sharpness: np.ndarray  # float64 [N], variance of the luma's Laplacian
    grey: np.ndarray  # uint8 [N, S, S], the luma

    @classmethod
    def of(cls, pixels: np.ndarray) -> Self:
        """Measure images, uint8 [N, S, S, 3]; N must not be 0."""
        count, side = 1 + _PART // pixels[0].size, pixels.shape[1]
        # All parts share these arrays, because the operating system would clear new ones for every part.
        scratch = [np.empty((count, *shape), np.float32) for shape in ((3, side, side), (side - 2, side - 2))]
        parts = [cls._of_part(pixels[start : start + count], *scratch) for start in range(0, len(pixels), count)]
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    @classmethod
    def _of_part(cls, pixels: np.ndarray, planes: np.ndarray, laplacian: np.ndarray) -> Self:
        planes, laplacian = planes[: len(pixels)], laplacian[: len(pixels)]
        np.copyto(planes, np.moveaxis(pixels, 3, 1))
        mean, mean_square = _mean(planes.sum(axis=3)), _mean(np.vecdot(planes, planes))
        low, high = (limit(planes, axis=(2, 3)).astype(np.uint8) for limit in (np.min, np.max))
        luma = _luma(planes)
        np.add(luma[:, :-2, 1:-1], luma[:, 2:, 1:-1], out=laplacian)
        laplacian += luma[:, 1:-1, :-2]
        laplacian += luma[:, 1:-1, 2:]
        laplacian -= luma[:, 1:-1, 1:-1] * np.float32(4)
        laplacian -= _mean(laplacian.sum(axis=2)).astype(np.float32)[:, None, None]
        sharpness = _mean(np.vecdot(laplacian, laplacian))
        return cls(mean, mean_square, low, high, mean @ _LUMA, sharpness, _round(luma))


def _mean(sums: np.ndarray) -> np.ndarray:
    """Return the means of images, [N, ...], from the sums of their rows, [N, ..., S].

    In float32, the sum of a row of whole numbers is exact, but that of a whole image would not be.
    """
    average: np.ndarray = sums.mean(axis=-1, dtype=np.float64) / sums.shape[-1]
    return average


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return the luma of images, uint8 [N, S, S, 3], as uint8 [N, S, S]."""
    return _round(_luma(np.moveaxis(pixels, 3, 1).astype(np.float32)))


def _luma(planes: np.ndarray) -> np.ndarray:
    """Return the luma of planes, float32 [N, 3, S, S], which are overwritten."""
    planes *= np.array(_LUMA, np.float32)[:, None, None]
    luma = planes[:, 0]
    luma += planes[:, 1]
    luma += planes[:, 2]
    return luma


def _round(luma: np.ndarray) -> np.ndarray:
    return (luma + np.float32(0.5)).astype(np.uint8)

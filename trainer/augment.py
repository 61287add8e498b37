"""Training augmentation of whole batches, with random choices for each image.

The functions use `keras.ops` alone, so they run on any Keras backend and can be compiled. Random numbers are an input,
which makes augmentation a pure function: a repeated or resumed training sees the same images, on one device or several.
"""

import functools
import math

import numpy as np
from keras import KerasTensor, ops
from scipy.special import betaincinv

from trainer import randaugment
from trainer.settings import AugmentSettings

# Columns of the random numbers of an image that each augmentation uses. The columns are fixed, so that turning one
# augmentation off does not change what the others do. RandAugment is last, because its number of columns varies.
_CROP, _FLIP, _ERASE, _MIX, _RANDAUGMENT = slice(0, 2), 2, slice(3, 11), slice(11, 15), slice(15, None)


def draws_per_image(settings: AugmentSettings) -> int:
    """Return the number of uniform random numbers that `augment` uses for an image."""
    return _RANDAUGMENT.start + settings.randaugment_ops * randaugment.DRAWS


def augment(
    images: KerasTensor,
    targets: KerasTensor,
    draws: KerasTensor,
    settings: AugmentSettings,
    mixing: KerasTensor | bool,
    branch: bool = True,
) -> tuple[KerasTensor, KerasTensor]:
    """Augment a batch: crop, flip, RandAugment, random erasing, Mixup and CutMix, in timm's order.

    Mixup and CutMix mix rows 2j and 2j + 1 with each other. Devices that each compute an even part of a batch therefore
    make the same images as one device that computes all of it.

    Args:
        images: Whole pixel values from 0 to 255 [N, height, width, 3], of any dtype; N is even.
        targets: One-hot labels, float32 [N, classes].
        draws: Uniform random numbers in [0, 1), float32 [N, draws_per_image(settings)].
        settings: The settings. A compiled function contains their values as constants.
        mixing: Scalar; whether Mixup and CutMix are on in this step.
        branch: Whether a step without mixing skips the work by a branch. False computes and discards the mixed images
            instead, for a device that would wait for its host at a branch. The result is the same.

    Returns:
        Images, float32 [N, height, width, 3] from 0 to 255, and targets, float32 [N, classes].
    """
    images = ops.cast(images, "float32")
    if settings.crop_padding:
        images = crop(images, draws[:, _CROP], settings.crop_padding)
    if settings.flip:
        images = flip(images, draws[:, _FLIP])
    if settings.randaugment_ops:
        images = randaugment.randaugment(
            images,
            draws[:, _RANDAUGMENT],
            settings.randaugment_magnitude,
            settings.randaugment_std,
            settings.randaugment_probability,
        )
    if settings.erase:
        images = erase(images, draws[:, _ERASE], settings.erase)
    if settings.mixup or settings.cutmix:
        is_on = ops.cast(mixing, "bool")

        def mix_batch() -> tuple[KerasTensor, KerasTensor]:
            return mix(images, targets, draws[:, _MIX], settings.mixup, settings.cutmix, settings.mixing_probability)

        if branch:
            # A branch saves the work while mixing is off. It also makes the compiler compute the augmented images once;
            # without it, they would be computed again for each image's partner.
            return ops.cond(is_on, mix_batch, lambda: (images, targets))
        # On a GPU a branch would stall every step: the host waits for all earlier work, reads `mixing`, and only then
        # launches the rest of the step.
        return tuple(ops.where(is_on, new, old) for new, old in zip(mix_batch(), (images, targets), strict=True))
    return images, targets


def crop(images: KerasTensor, draws: KerasTensor, padding: int) -> KerasTensor:
    """Pad each image with black pixels and cut a window of the original size out of it at a random place.

    Args:
        images: float32 [N, height, width, 3].
        draws: Uniform random numbers in [0, 1), float32 [N, 2].
        padding: Pixels added on each side.

    Returns:
        The windows, float32 [N, height, width, 3].
    """
    height, width = images.shape[1:3]
    # Row and column of the window's top left corner, relative to the image without padding.
    corner = ops.cast(draws * (2 * padding + 1), "int32") - padding
    row = corner[:, 0, None] + ops.arange(height)
    column = corner[:, 1, None] + ops.arange(width)
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    row, column = ops.clip(row, 0, height - 1), ops.clip(column, 0, width - 1)
    first = (ops.arange(ops.shape(images)[0]) * (height * width))[:, None, None]
    window = ops.take(ops.reshape(images, (-1, 3)), first + row[:, :, None] * width + column[:, None, :], axis=0)
    return ops.where(inside[..., None], window, 0.0)


def flip(images: KerasTensor, draws: KerasTensor) -> KerasTensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: float32 [N, height, width, 3].
        draws: Uniform random numbers in [0, 1), float32 [N].

    Returns:
        The images, float32 [N, height, width, 3].
    """
    return ops.where(draws[:, None, None, None] < 0.5, images[:, :, ::-1], images)


def erase(images: KerasTensor, draws: KerasTensor, probability: float) -> KerasTensor:
    """Cover a random rectangle of an image with one random colour (Zhong et al., 2017, arXiv:1708.04896).

    The rectangle's area is uniform from 2 % to a third of the image. Its aspect ratio is from 3:10 to 10:3, uniform in
    its logarithm. A side that would be longer than the image is cut to the image's side.

    Args:
        images: float32 [N, height, width, 3].
        draws: Uniform random numbers in [0, 1), float32 [N, 8].
        probability: Probability with which an image gets a rectangle.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    height, width = images.shape[1:3]
    chance, area, aspect, top, left = (draws[:, column, None] for column in range(5))
    area = (0.02 + (1 / 3 - 0.02) * area) * height * width
    aspect = ops.exp((2 * aspect - 1) * math.log(10 / 3))
    rows = ops.minimum(ops.round(ops.sqrt(area * aspect)), height)
    columns = ops.minimum(ops.round(ops.sqrt(area / aspect)), width)
    top, left = ops.floor(top * (height - rows + 1)), ops.floor(left * (width - columns + 1))
    inside = _inside(top, top + rows, left, left + columns, height, width)
    colour = ops.floor(draws[:, None, None, 5:8] * 256)
    return ops.where((chance < probability)[..., None, None] & inside, colour, images)


def mix(
    images: KerasTensor,
    targets: KerasTensor,
    draws: KerasTensor,
    mixup: float,
    cutmix: float,
    probability: float = 1.0,
) -> tuple[KerasTensor, KerasTensor]:
    """Mix each image with its neighbour, by Mixup or CutMix. If both are on, each has probability one half.

    Mixup is that of Zhang et al., 2017, arXiv:1710.09412, and CutMix that of Yun et al., 2019, arXiv:1905.04899. The
    share of an image that stays is drawn from Beta(alpha, alpha). The rectangle of CutMix is clipped at the border of
    the image, and the targets are mixed in proportion to the clipped area.

    Args:
        images: float32 [N, height, width, 3]; N is even.
        targets: float32 [N, classes].
        draws: float32 [N, 4], uniform in [0, 1).
        mixup: Alpha of Mixup. 0 turns Mixup off.
        cutmix: Alpha of CutMix. 0 turns CutMix off.
        probability: Probability with which an image is mixed.

    Returns:
        The mixed images and targets.
    """
    height, width = images.shape[1:3]
    choice, share, y, x = (draws[:, column, None] for column in range(4))
    is_mixed, choice = choice < probability, choice / max(probability, 1e-6)
    own = ops.ones_like(images[..., :1])  # share of each pixel that stays
    if mixup:
        own = own * _beta(share, mixup)[..., None, None]
    if cutmix:
        side = ops.sqrt(1 - _beta(share, cutmix))
        half_height, half_width = (ops.floor(ops.floor(size * side) / 2) for size in (height, width))
        y, x = ops.floor(y * height), ops.floor(x * width)
        inside = _inside(y - half_height, y + half_height, x - half_width, x + half_width, height, width)
        is_cutmix = choice < (0.5 if mixup else 1.0)
        own = ops.where(is_cutmix[..., None, None], ops.where(inside, 0.0, 1.0), own)
    if probability < 1:
        own = ops.where(is_mixed[..., None, None], own, 1.0)
    share = ops.mean(own, axis=(1, 2))
    return own * images + (1 - own) * _partners(images), share * targets + (1 - share) * _partners(targets)


def _partners(rows: KerasTensor) -> KerasTensor:
    """Return the rows with neighbours swapped: row 1, row 0, row 3, row 2, and so on."""
    pairs = ops.reshape(rows, (-1, 2, *rows.shape[1:]))
    return ops.reshape(pairs[:, ::-1], (-1, *rows.shape[1:]))


def _inside(
    top: KerasTensor, bottom: KerasTensor, left: KerasTensor, right: KerasTensor, height: int, width: int
) -> KerasTensor:
    """Return a mask of one rectangle for each image, bool [N, height, width, 1]; its sides are float32 [N, 1]."""
    row, column = ops.arange(height, dtype="float32"), ops.arange(width, dtype="float32")
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return (rows[:, :, None] & columns[:, None, :])[..., None]


@functools.cache
def _beta_quantiles(alpha: float) -> np.ndarray:
    """Return the quantiles of Beta(alpha, alpha) at 0, 1/1024, ... 1, float32 [1025]."""
    return betaincinv(alpha, alpha, np.linspace(0, 1, 1025)).astype("float32")


def _beta(uniform: KerasTensor, alpha: float) -> KerasTensor:
    """Turn uniform random numbers into Beta(alpha, alpha), by linear interpolation in a table of quantiles."""
    table = _beta_quantiles(alpha)
    cell = ops.cast(uniform * 1024, "int32")
    low, high = (ops.take(values, cell) for values in (table[:-1], table[1:]))
    return low + (high - low) * (uniform * 1024 - ops.cast(cell, "float32"))

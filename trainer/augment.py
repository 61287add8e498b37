"""Training augmentation as batched `keras.ops`, a choice for each image. Keras 3 only: runs on any backend, compiled.

Chance comes in with the batch, as uniform random numbers for each image, so that augmentation is a pure function:
a repeated or resumed training, on one device or several, sees the same images.
"""

import functools
import math

import numpy as np
from keras import KerasTensor, ops
from scipy.special import betaincinv

from trainer import randaugment
from trainer.settings import AugmentSettings

# The random numbers of an image by what takes them. A part keeps its columns when it is turned off, so that the others
# do the same without it. RandAugment's stand last: there are as many as it does operations.
_CROP, _FLIP, _ERASE, _MIX, _RANDAUGMENT = slice(0, 2), 2, slice(3, 11), slice(11, 15), slice(15, None)


def draws_per_image(settings: AugmentSettings) -> int:
    """How many uniform random numbers `augment` takes for an image."""
    return _RANDAUGMENT.start + settings.randaugment_ops * randaugment.DRAWS


def augment(
    images: KerasTensor,
    targets: KerasTensor,
    draws: KerasTensor,
    settings: AugmentSettings,
    mixing: KerasTensor | bool,
    branch: bool = True,
) -> tuple[KerasTensor, KerasTensor]:
    """Crop, flip, RandAugment, random erasing, Mixup and CutMix, in timm's order.

    images: whole pixels from 0 to 255 [N, height, width, 3], any dtype; targets: float32 [N, classes], one-hot; draws:
    float32 [N, draws_per_image(settings)], uniform in [0, 1); settings: an AugmentSettings, read when compiled;
    mixing: scalar, whether Mixup and CutMix are on in this step. N is even: rows 2j and 2j + 1 are mixed with each
    other, so that a batch that is split over devices in even parts gives the same images. branch: whether a step
    without mixing skips the work. False computes and discards it, with the same result, for a device that would wait
    for its host at a branch.
    Returns images float32 [N, height, width, 3], 0 to 255, and targets float32 [N, classes].
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
        on = ops.cast(mixing, "bool")

        def mixed() -> tuple[KerasTensor, KerasTensor]:
            return mix(images, targets, draws[:, _MIX], settings.mixup, settings.cutmix, settings.mixing_probability)

        if branch:
            # A branch saves the work while mixing is off, and the compiler computes what stands above once, not again
            # for each partner.
            return ops.cond(on, mixed, lambda: (images, targets))
        # On a GPU a branch makes the host read `mixing` in every step, after all earlier work is done, before it
        # launches what follows.
        return tuple(ops.where(on, new, old) for new, old in zip(mixed(), (images, targets), strict=True))
    return images, targets


def crop(images: KerasTensor, draws: KerasTensor, padding: int) -> KerasTensor:
    """Pad each image by `padding` black pixels a side and cut a window of the old size out of it. `draws` [N, 2]."""
    height, width = images.shape[1:3]
    corner = ops.cast(draws * (2 * padding + 1), "int32") - padding  # in the image without its padding
    row = corner[:, 0, None] + ops.arange(height)
    column = corner[:, 1, None] + ops.arange(width)
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    row, column = ops.clip(row, 0, height - 1), ops.clip(column, 0, width - 1)
    first = (ops.arange(ops.shape(images)[0]) * (height * width))[:, None, None]
    window = ops.take(ops.reshape(images, (-1, 3)), first + row[:, :, None] * width + column[:, None, :], axis=0)
    return ops.where(inside[..., None], window, 0.0)


def flip(images: KerasTensor, draws: KerasTensor) -> KerasTensor:
    """Mirror each image left to right with probability one half. `draws` [N]."""
    return ops.where(draws[:, None, None, None] < 0.5, images[:, :, ::-1], images)


def erase(images: KerasTensor, draws: KerasTensor, probability: float) -> KerasTensor:
    """Random erasing (Zhong et al., 2017, arXiv:1708.04896): a rectangle of one random colour. `draws` [N, 8].

    It covers 2 % to a third of the image, evenly, in a shape from 3:10 to 10:3, even in its logarithm. One that is
    longer than the image is cut to it.
    """
    height, width = images.shape[1:3]
    whether, area, aspect, top, left = (draws[:, column, None] for column in range(5))
    area = (0.02 + (1 / 3 - 0.02) * area) * height * width
    aspect = ops.exp((2 * aspect - 1) * math.log(10 / 3))
    rows = ops.minimum(ops.round(ops.sqrt(area * aspect)), height)
    columns = ops.minimum(ops.round(ops.sqrt(area / aspect)), width)
    top, left = ops.floor(top * (height - rows + 1)), ops.floor(left * (width - columns + 1))
    inside = _inside(top, top + rows, left, left + columns, height, width)
    colour = ops.floor(draws[:, None, None, 5:8] * 256)
    return ops.where((whether < probability)[..., None, None] & inside, colour, images)


def mix(
    images: KerasTensor,
    targets: KerasTensor,
    draws: KerasTensor,
    mixup: float,
    cutmix: float,
    probability: float = 1.0,
) -> tuple[KerasTensor, KerasTensor]:
    """Mix each image with its neighbour, by Mixup or CutMix. If both are on, each image gets one of them at even odds.

    Mixup is that of Zhang et al., 2017, arXiv:1710.09412, CutMix that of Yun et al., 2019, arXiv:1905.04899. The share
    of an image that stays is drawn from Beta(alpha, alpha). CutMix' rectangle is cut at the border, and the targets are
    mixed by the area that is left of it.

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
    which, share, y, x = (draws[:, column, None] for column in range(4))
    mixes, which = which < probability, which / max(probability, 1e-6)
    own = ops.ones_like(images[..., :1])  # how much of each pixel stays
    if mixup:
        own = own * _beta(share, mixup)[..., None, None]
    if cutmix:
        side = ops.sqrt(1 - _beta(share, cutmix))
        half_height, half_width = (ops.floor(ops.floor(size * side) / 2) for size in (height, width))
        y, x = ops.floor(y * height), ops.floor(x * width)
        inside = _inside(y - half_height, y + half_height, x - half_width, x + half_width, height, width)
        cut = which < (0.5 if mixup else 1.0)
        own = ops.where(cut[..., None, None], ops.where(inside, 0.0, 1.0), own)
    if probability < 1:
        own = ops.where(mixes[..., None, None], own, 1.0)
    share = ops.mean(own, axis=(1, 2))
    return own * images + (1 - own) * _partners(images), share * targets + (1 - share) * _partners(targets)


def _partners(rows: KerasTensor) -> KerasTensor:
    """Each row's neighbour: row 1 for row 0 and row 0 for row 1, row 3 for row 2, and so on."""
    pairs = ops.reshape(rows, (-1, 2, *rows.shape[1:]))
    return ops.reshape(pairs[:, ::-1], (-1, *rows.shape[1:]))


def _inside(
    top: KerasTensor, bottom: KerasTensor, left: KerasTensor, right: KerasTensor, height: int, width: int
) -> KerasTensor:
    """Which pixels lie in a rectangle for each image, bool [N, height, width, 1]; its sides are float32 [N, 1]."""
    row, column = ops.arange(height, dtype="float32"), ops.arange(width, dtype="float32")
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return (rows[:, :, None] & columns[:, None, :])[..., None]


@functools.cache
def _beta_quantiles(alpha: float) -> np.ndarray:
    """The quantiles of Beta(alpha, alpha) at 0, 1/1024, ... 1, float32 [1025]."""
    return betaincinv(alpha, alpha, np.linspace(0, 1, 1025)).astype("float32")


def _beta(uniform: KerasTensor, alpha: float) -> KerasTensor:
    """Beta(alpha, alpha) from uniform random numbers, straight between the quantiles of a table."""
    table = _beta_quantiles(alpha)
    cell = ops.cast(uniform * 1024, "int32")
    low, high = (ops.take(values, cell) for values in (table[:-1], table[1:]))
    return low + (high - low) * (uniform * 1024 - ops.cast(cell, "float32"))

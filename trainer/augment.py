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
# augmentation off does not change what the others do.
_CROP, _FLIP, _ERASE, _MIX = slice(0, 2), 2, slice(3, 11), slice(11, 15)
_FIRST_OF_RANDAUGMENT = 15  # the number of its columns varies
# Columns of the augmentations for photographs, counted from the first column after those of RandAugment. Recipes
# without these augmentations do not have the columns, because the random numbers of a batch depend on how many each
# image has.
_RESIZED_CROP, _THREE_AUGMENT, _JITTER, _PHOTOGRAPH_COLUMNS = slice(0, 4), slice(4, 6), slice(6, 9), 9

_BLUR_SIGMA = (0.1, 2.0)  # range of the blur of three-augment, in pixels


def draws_per_image(settings: AugmentSettings) -> int:
    """Return the number of uniform random numbers that `augment` uses for an image."""
    is_for_photographs = settings.resized_crop_scale or settings.three_augment or settings.colour_jitter
    return _end_of_randaugment(settings) + (_PHOTOGRAPH_COLUMNS if is_for_photographs else 0)


def _end_of_randaugment(settings: AugmentSettings) -> int:
    return _FIRST_OF_RANDAUGMENT + settings.randaugment_ops * randaugment.DRAWS


def augment(
    images: KerasTensor,
    targets: KerasTensor,
    draws: KerasTensor,
    settings: AugmentSettings,
    size: int,
    mixing: KerasTensor | bool,
    branch: bool = True,
) -> tuple[KerasTensor, KerasTensor]:
    """Augment a batch: crop, flip, RandAugment, three-augment, colour jitter, random erasing, Mixup and CutMix.

    Recipes with RandAugment follow timm's order, and those with three-augment follow DeiT III's.

    Mixup and CutMix mix rows 2j and 2j + 1 with each other. Devices that each compute an even part of a batch therefore
    make the same images as one device that computes all of it.

    Args:
        images: Whole pixel values from 0 to 255 [N, side, side, 3], of any dtype; N is even. Without resized crops
            `side` equals `size`.
        targets: One-hot labels, float32 [N, classes].
        draws: Uniform random numbers in [0, 1), float32 [N, draws_per_image(settings)].
        settings: The settings. A compiled function contains their values as constants.
        size: Side of the augmented images, which is that of the model's input, in pixels.
        mixing: Scalar; whether Mixup and CutMix are on in this step.
        branch: Whether a step without mixing skips the work by a branch. False computes and discards the mixed images
            instead, for a device that would wait for its host at a branch. The result is the same.

    Returns:
        Images, float32 [N, size, size, 3] from 0 to 255, and targets, float32 [N, classes].

    Raises:
        ValueError: If the images have another size than `size`, and the settings have no resized crops.
    """
    if not settings.resized_crop_scale and images.shape[1:3] != (size, size):
        raise ValueError(
            f"the images have {images.shape[1]} x {images.shape[2]} pixels, but the model takes {size} x {size}: set "
            "augment.resized_crop_scale, or train on images of the model's size"
        )
    end = _end_of_randaugment(settings)
    photograph_draws = draws[:, end:]
    images = ops.cast(images, "float32")
    if settings.resized_crop_scale:
        scale, ratio = settings.resized_crop_scale, settings.resized_crop_ratio
        images = resize(images, crop_boxes(photograph_draws[:, _RESIZED_CROP], images.shape[1], scale, ratio), size)
    elif settings.crop_padding:
        images = crop(images, draws[:, _CROP], settings.crop_padding)
    if settings.flip:
        images = flip(images, draws[:, _FLIP])
    if settings.randaugment_ops:
        images = randaugment.randaugment(
            images,
            draws[:, _FIRST_OF_RANDAUGMENT:end],
            settings.randaugment_magnitude,
            settings.randaugment_std,
            settings.randaugment_probability,
        )
    if settings.three_augment:
        images = three_augment(images, photograph_draws[:, _THREE_AUGMENT])
    if settings.colour_jitter:
        images = jitter_colours(images, photograph_draws[:, _JITTER], settings.colour_jitter)
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


def crop_boxes(
    draws: KerasTensor, side: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[KerasTensor, KerasTensor, KerasTensor, KerasTensor]:
    """Choose random rectangles inside square images (Szegedy et al., 2014, arXiv:1409.4842).

    The rectangles are distributed as in torchvision's and timm's RandomResizedCrop. Those draw an area, uniform in
    `scale`, and an aspect ratio, uniform in its logarithm, until the rectangle fits into the image, and give up after
    ten attempts. Here the area is drawn from its distribution among the pairs that fit, and then the ratio from the
    part of its range that fits, which takes a fixed number of random numbers. Sides and corners are not rounded to
    whole pixels.

    Args:
        draws: Uniform random numbers in [0, 1), float32 [N, 4].
        side: Side of the images, in pixels.
        scale: Smallest and largest area of a rectangle, as shares of the image's area.
        ratio: Smallest and largest ratio of width to height.

    Returns:
        Left, top, right and bottom edges of the rectangles in pixels, float32 [N] each.
    """
    area = _interpolate(_crop_area_quantiles(scale, ratio), draws[:, 0])
    # A rectangle of area a fits into the unit square if its ratio is from a to 1/a.
    low, high = ops.maximum(ops.log(area), math.log(ratio[0])), ops.minimum(-ops.log(area), math.log(ratio[1]))
    aspect = ops.exp(low + (high - low) * draws[:, 1])
    width, height = (ops.minimum(ops.sqrt(part), 1.0) * side for part in (area * aspect, area / aspect))
    left, top = draws[:, 2] * (side - width), draws[:, 3] * (side - height)
    return left, top, left + width, top + height


def resize(
    images: KerasTensor, boxes: tuple[KerasTensor, KerasTensor, KerasTensor, KerasTensor], size: int
) -> KerasTensor:
    """Cut a rectangle out of each image and resize it to a square, with Pillow's antialiased bilinear filter.

    Args:
        images: Whole pixel values, float32 [N, height, width, 3].
        boxes: Left, top, right and bottom edges of the rectangles in pixels, float32 [N] each.
        size: Side of the squares, in pixels.

    Returns:
        The squares, whole pixel values, float32 [N, size, size, 3].
    """
    height, width = images.shape[1:3]
    left, top, right, bottom = boxes
    # As in Pillow, rows are resized before columns, and rounded in between.
    images = randaugment.round_half_up(ops.einsum("nxw,nhwc->nhxc", _resize_matrices(left, right, width, size), images))
    return randaugment.round_half_up(ops.einsum("nyh,nhxc->nyxc", _resize_matrices(top, bottom, height, size), images))


def _resize_matrices(start: KerasTensor, end: KerasTensor, length: int, size: int) -> KerasTensor:
    """Return matrices that resize the part from `start` to `end` [N] of a line of pixels, float32 [N, size, length]."""
    scale = (end - start)[:, None, None] / size
    centres = start[:, None, None] + (ops.arange(size, dtype="float32")[:, None] + 0.5) * scale
    # The weights are a triangle around each centre, which covers at least the nearest pixel. If the part is reduced,
    # the triangle covers all pixels that a pixel of the result replaces.
    distances = ops.abs(ops.arange(length, dtype="float32") + 0.5 - centres)
    weights = ops.maximum(1 - distances / ops.maximum(scale, 1.0), 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def flip(images: KerasTensor, draws: KerasTensor) -> KerasTensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: float32 [N, height, width, 3].
        draws: Uniform random numbers in [0, 1), float32 [N].

    Returns:
        The images, float32 [N, height, width, 3].
    """
    return ops.where(draws[:, None, None, None] < 0.5, images[:, :, ::-1], images)


def three_augment(images: KerasTensor, draws: KerasTensor) -> KerasTensor:
    """Make each image grey, or solarize or blur it, with equal probability (Touvron et al., 2022, arXiv:2204.07118).

    As in the authors' code, the values from 128 up are inverted by solarizing, and the standard deviation of the blur
    is uniform from 0.1 to 2 pixels.

    Args:
        images: float32 [N, height, width, 3].
        draws: Uniform random numbers in [0, 1), float32 [N, 2].

    Returns:
        The images, float32 [N, height, width, 3].
    """
    choice = ops.cast(draws[:, 0] * 3, "int32")[:, None, None, None]
    smallest, largest = _BLUR_SIGMA
    blurred = randaugment.gaussian_blur(images, smallest + (largest - smallest) * draws[:, 1], largest)
    changed = ops.where(choice == 1, randaugment.solarize(images, 128.0), blurred)
    return ops.where(choice == 0, randaugment.grey(images), changed)


def jitter_colours(images: KerasTensor, draws: KerasTensor, strength: float) -> KerasTensor:
    """Change the brightness, contrast and saturation of each image, by the factors of torchvision's ColorJitter.

    torchvision makes the three changes in random order. Here the order is fixed, because all orders give the same image
    where no value is clipped. At strength 0.3 they differ by less than one grey level on average.

    Args:
        images: float32 [N, height, width, 3].
        draws: Uniform random numbers in [0, 1), float32 [N, 3].
        strength: Largest change of a factor, from 0 to 1. The factors are uniform from 1 - strength to 1 + strength.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    factors = 1 + strength * (2 * draws[:, None, None, :] - 1)
    brightness, contrast, saturation = (factors[..., column, None] for column in range(3))
    images = randaugment.blend(0.0, images, brightness)
    images = randaugment.blend(randaugment.mean_grey(images), images, contrast)
    return randaugment.blend(randaugment.grey(images), images, saturation)


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


@functools.cache
def _crop_area_quantiles(scale: tuple[float, float], ratio: tuple[float, float]) -> np.ndarray:
    """Return the quantiles at 0, 1/1024, ... 1 of the areas in `scale` for which a ratio fits, float32 [1025]."""
    areas = np.linspace(scale[0], min(scale[1], 1 / ratio[0], ratio[1]), 1025)
    # Each area is weighted by the length of the range of ratios that fit. The small addition gives a weight to areas
    # for which exactly one ratio fits.
    fitting = np.minimum(math.log(ratio[1]), -np.log(areas)) - np.maximum(math.log(ratio[0]), np.log(areas))
    weights = np.maximum(fitting + 1e-9, 0)
    below = np.concatenate([[0], np.cumsum(weights[1:] + weights[:-1])])
    return np.interp(np.linspace(0, 1, 1025), below / below[-1], areas).astype("float32")


def _beta(uniform: KerasTensor, alpha: float) -> KerasTensor:
    """Turn uniform random numbers into Beta(alpha, alpha)."""
    return _interpolate(_beta_quantiles(alpha), uniform)


def _interpolate(table: np.ndarray, uniform: KerasTensor) -> KerasTensor:
    """Interpolate linearly in a table of quantiles at 0, 1/1024, ... 1."""
    cell = ops.cast(uniform * 1024, "int32")
    low, high = (ops.take(values, cell) for values in (table[:-1], table[1:]))
    return low + (high - low) * (uniform * 1024 - ops.cast(cell, "float32"))

"""RandAugment (Cubuk et al., 2019, arXiv:1909.13719) for batches, with a random operation for each image.

The fifteen operations and the meaning of their magnitudes are those of timm's "increasing" set (`rand-m9-mstd0.5-inc1`
of github.com/huggingface/pytorch-image-models), where a higher magnitude always changes an image more. The result of
each operation is within one grey level of that of Pillow's function of the same name.

Images are float32 [N, height, width, 3] with whole pixel values from 0 to 255, before and after every operation. The
functions use `keras.ops` alone, so they run on any Keras backend and can be compiled.
"""

import math

import numpy as np
from keras import KerasTensor, ops

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
DRAWS = 4  # uniform random numbers for each operation: its index, whether it is applied, its magnitude, its sign
FILL = 128.0  # colour beyond the border of a rotated, sheared or shifted image: timm's grey


def randaugment(
    images: KerasTensor, draws: KerasTensor, magnitude: float, std: float, probability: float
) -> KerasTensor:
    """Apply random operations to each image, one after the other.

    Args:
        images: float32 [N, height, width, 3].
        draws: Uniform random numbers in [0, 1), float32 [N, DRAWS * operations for each image].
        magnitude: Mean magnitude of an operation, from 0 to 10.
        std: Standard deviation of the magnitude, which is normally distributed and clipped to the range from 0 to 10.
        probability: Probability with which each operation is applied.

    Returns:
        The images, float32 [N, height, width, 3].
    """

    def apply_operation(number: KerasTensor, images: KerasTensor) -> KerasTensor:
        index, chance, strength, side = (draws[:, number, column] for column in range(DRAWS))
        operation = ops.cast(index * len(OPERATIONS), "int32")
        operation = ops.where(chance < probability, operation, -1)
        level = magnitude + std * _normal(strength) if std else ops.full_like(strength, magnitude)
        sign = ops.where(side < 0.5, -1.0, 1.0)
        return transform(images, operation, ops.clip(level, 0.0, 10.0) / 10, sign)

    operations = draws.shape[1] // DRAWS
    draws = ops.reshape(draws, (-1, operations, DRAWS))
    # Without a loop, the compiler would compute the result of an operation again for each of its uses in the next one.
    return ops.fori_loop(0, operations, apply_operation, images)


def transform(images: KerasTensor, operation: KerasTensor, level: KerasTensor, sign: KerasTensor) -> KerasTensor:
    """Apply one operation to each image.

    Args:
        images: float32 [N, height, width, 3].
        operation: Index into OPERATIONS, or -1 for no operation; int32 [N].
        level: Magnitude as a share of the highest one, from 0 to 1; float32 [N].
        sign: -1 or 1, the direction of an operation that has two; float32 [N].

    Returns:
        The images, float32 [N, height, width, 3].
    """
    height, width = images.shape[1:3]

    def is_selected(name: str) -> KerasTensor:
        return operation == OPERATIONS.index(name)

    def amount(name: str, limit: float) -> KerasTensor:
        return ops.where(is_selected(name), sign * level * limit, 0.0)

    moved = affine(
        images,
        angle=amount("Rotate", math.radians(30)),
        shear=(amount("ShearX", 0.3), amount("ShearY", 0.3)),
        shift=(amount("TranslateXRel", 0.45 * width), amount("TranslateYRel", 0.45 * height)),
    )
    level, sign = level[:, None, None, None], sign[:, None, None, None]
    factor = ops.maximum(1 + sign * level * 0.9, 0.1)
    results = {
        "AutoContrast": autocontrast(images),
        "Equalize": equalize(images),
        "Invert": 255 - images,
        "PosterizeIncreasing": posterize(images, bits=4 - ops.floor(level * 4)),
        "SolarizeIncreasing": solarize(images, threshold=256 - ops.floor(level * 256)),
        "SolarizeAdd": solarize_add(images, ops.floor(level * 110)),
        "ColorIncreasing": blend(grey(images), images, factor),
        "ContrastIncreasing": blend(mean_grey(images), images, factor),
        "BrightnessIncreasing": blend(0.0, images, factor),
        "SharpnessIncreasing": blend(smooth(images), images, factor),
    }
    is_affine = is_selected("Rotate") | is_selected("ShearX") | is_selected("ShearY")
    is_affine = is_affine | is_selected("TranslateXRel") | is_selected("TranslateYRel")
    changed = ops.where(is_affine[:, None, None, None], moved, images)
    for name, result in results.items():
        changed = ops.where(is_selected(name)[:, None, None, None], result, changed)
    return changed


def affine(
    images: KerasTensor,
    angle: KerasTensor,
    shear: tuple[KerasTensor, KerasTensor],
    shift: tuple[KerasTensor, KerasTensor],
) -> KerasTensor:
    """Rotate, shear or shift images with bilinear interpolation. Pixels beyond the border are grey.

    For each image at most one of the arguments may be other than 0.

    Args:
        images: float32 [N, height, width, 3].
        angle: Radians counter-clockwise around the centre, float32 [N].
        shear: Horizontal and vertical shear, float32 [N] each. A pixel shows the point that is `shear_x * y` pixels to
            its right, or `shear_y * x` pixels below it, where x and y are its distances from the top left corner.
        shift: Horizontal and vertical shift, float32 [N] each. A pixel shows the point that is so many pixels to its
            right, or below it.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    height, width = images.shape[1:3]
    x = ops.arange(width, dtype="float32")[None, None, :] + 0.5  # centres of the pixels
    y = ops.arange(height, dtype="float32")[None, :, None] + 0.5
    cos, sin = ops.cos(angle)[:, None, None], ops.sin(angle)[:, None, None]
    (shear_x, shear_y), (shift_x, shift_y) = ((a[:, None, None], b[:, None, None]) for a, b in (shear, shift))
    right, down = x - width / 2, y - height / 2  # distances from the centre
    # Each pixel shows the point (from_x, from_y) of the original image.
    from_x = cos * right - sin * down + width / 2 + shear_x * y + shift_x
    from_y = sin * right + cos * down + height / 2 + shear_y * x + shift_y
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)

    left, top = ops.floor(from_x - 0.5), ops.floor(from_y - 0.5)
    to_right, to_bottom = (from_x - 0.5 - left)[..., None], (from_y - 0.5 - top)[..., None]
    pixels = ops.reshape(images, (-1, 3))
    first = (ops.arange(ops.shape(images)[0]) * (height * width))[:, None, None]

    def pixels_at(row: KerasTensor, column: KerasTensor) -> KerasTensor:
        # Beyond the border, the nearest pixel on the border is used.
        row = ops.cast(ops.clip(row, 0, height - 1), "int32")
        column = ops.cast(ops.clip(column, 0, width - 1), "int32")
        return ops.take(pixels, first + row * width + column, axis=0)

    upper = pixels_at(top, left) * (1 - to_right) + pixels_at(top, left + 1) * to_right
    lower = pixels_at(top + 1, left) * (1 - to_right) + pixels_at(top + 1, left + 1) * to_right
    return ops.where(inside[..., None], _truncate(upper * (1 - to_bottom) + lower * to_bottom), FILL)


def autocontrast(images: KerasTensor) -> KerasTensor:
    """Stretch each channel to the whole range from 0 to 255; a channel with a single value is not changed."""
    low = ops.min(images, axis=(1, 2), keepdims=True)
    high = ops.max(images, axis=(1, 2), keepdims=True)
    stretched = _truncate((images - low) * 255 / ops.maximum(high - low, 1))
    return ops.where(high > low, stretched, images)


def equalize(images: KerasTensor) -> KerasTensor:
    """Spread the values of each channel so that their histogram is flat."""
    height, width = images.shape[1:3]
    count = ops.shape(images)[0]
    # Each channel of each image has its own 256 bins in one long histogram.
    channel = ops.reshape(ops.arange(count * 3), (-1, 1, 1, 3))
    bins = ops.cast(images, "int32") + channel * 256
    ones = ops.ones_like(ops.reshape(images, (-1,)))
    histogram = ops.segment_sum(ones, ops.reshape(bins, (-1,)), num_segments=count * 3 * 256)
    histogram = ops.reshape(histogram, (-1, 256))
    below = ops.cumsum(histogram, axis=-1) - histogram  # pixels darker than each value
    # As in Pillow, the pixels of the brightest value are not counted.
    darker = ops.max(ops.where(below < height * width, below, 0.0), axis=-1, keepdims=True)
    step = ops.floor((darker + 0.5) / 255)
    values = ops.floor((ops.floor(step / 2) + below + 0.5) / ops.maximum(step, 1))
    values = ops.where(step > 0, ops.minimum(values, 255.0), ops.arange(256, dtype="float32"))
    return ops.take(ops.reshape(values, (-1,)), bins, axis=0)


def posterize(images: KerasTensor, bits: KerasTensor) -> KerasTensor:
    """Keep the upper bits of each pixel value.

    Args:
        images: float32 [N, height, width, 3].
        bits: Number of bits to keep, from 0 to 8; whole float32, broadcast to the images.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    step = 2.0 ** (8 - bits)
    return ops.floor(images / step) * step


def solarize(images: KerasTensor, threshold: KerasTensor) -> KerasTensor:
    """Invert pixel values that are at least a threshold.

    Args:
        images: float32 [N, height, width, 3].
        threshold: Smallest value to invert, float32, broadcast to the images.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    return ops.where(images < threshold, images, 255 - images)


def solarize_add(images: KerasTensor, addition: KerasTensor) -> KerasTensor:
    """Add a constant to pixel values below 128.

    Args:
        images: float32 [N, height, width, 3].
        addition: Value to add, float32, broadcast to the images.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    return ops.where(images < 128, ops.minimum(images + addition, 255.0), images)


def blend(start: KerasTensor | float, images: KerasTensor, factor: KerasTensor) -> KerasTensor:
    """Interpolate or extrapolate linearly between two images.

    Args:
        start: Result at factor 0, float32, broadcast to the images.
        images: Result at factor 1, float32 [N, height, width, 3].
        factor: Position on the line through both, float32, broadcast to the images. Above 1 it extrapolates.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    return ops.clip(_truncate(start + factor * (images - start)), 0.0, 255.0)


def grey(images: KerasTensor) -> KerasTensor:
    """Compute the luma by ITU-R 601-2, [N, height, width, 1], in Pillow's fixed-point arithmetic."""
    # The sums are below 2**24, and so exact in float32.
    red, green, blue = images[..., 0:1], images[..., 1:2], images[..., 2:3]
    return ops.floor((red * 19595 + green * 38470 + blue * 7471 + 32768) / 65536)


def mean_grey(images: KerasTensor) -> KerasTensor:
    """Compute the mean luma of each image, [N, 1, 1, 1]."""
    return ops.floor(ops.mean(grey(images), axis=(1, 2), keepdims=True) + 0.5)


def smooth(images: KerasTensor) -> KerasTensor:
    """Average each pixel, with weight 5, and its eight neighbours, with weight 1. Border pixels are not changed."""
    height, width = images.shape[1:3]
    columns = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    squares = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    means = ops.floor((squares + 4 * images[:, 1:-1, 1:-1]) / 13 + 0.5)
    row, column = ops.arange(height)[:, None, None], ops.arange(width)[None, :, None]
    border = (row == 0) | (row == height - 1) | (column == 0) | (column == width - 1)
    return ops.where(border, images, ops.pad(means, ((0, 0), (1, 1), (1, 1), (0, 0))))


def gaussian_blur(images: KerasTensor, sigma: KerasTensor, largest: float) -> KerasTensor:
    """Blur images by a Gaussian. Beyond the border, the nearest pixel on the border is used.

    Pillow approximates the Gaussian by three box filters. On smooth pictures its results differ by 0.6 grey levels on
    average and by at most 8, next to the border; on noise they differ by up to 35.

    Args:
        images: float32 [N, height, width, 3].
        sigma: Standard deviation of the Gaussian in pixels, float32 [N].
        largest: Largest possible value of `sigma`.

    Returns:
        The images, float32 [N, height, width, 3].
    """
    reach = math.ceil(4 * largest)
    for axis, product in (2, "nxw,nhwc->nhxc"), (1, "nyh,nhxc->nyxc"):
        side = images.shape[axis]
        place = np.arange(-reach, side + reach, dtype="float32")
        extended = ops.take(images, np.clip(place.astype("int32"), 0, side - 1), axis=axis)
        distances = place - ops.arange(side, dtype="float32")[:, None]
        weights = ops.exp(-0.5 * (distances / sigma[:, None, None]) ** 2)
        images = ops.einsum(product, weights / ops.sum(weights, axis=-1, keepdims=True), extended)
    return round_half_up(images)


def round_half_up(values: KerasTensor) -> KerasTensor:
    """Round to whole numbers as Pillow's filters do."""
    return ops.floor(values + 0.5)


def _truncate(values: KerasTensor) -> KerasTensor:
    """Round down to whole numbers, as Pillow does. A whole number that float32 made slightly too small is restored."""
    return ops.floor(values + 1e-3)


def _normal(uniform: KerasTensor) -> KerasTensor:
    """Turn uniform random numbers into standard normal ones."""
    return math.sqrt(2) * ops.erfinv(2 * uniform - 1)

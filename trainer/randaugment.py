"""RandAugment (Cubuk et al., 2019, arXiv:1909.13719) as batched `keras.ops`, an operation of its own for each image.

The fifteen operations and the meaning of their magnitudes are those of timm's "increasing" set (`rand-m9-mstd0.5-inc1`
of github.com/huggingface/pytorch-image-models), where a higher magnitude always changes more. Each gives what Pillow's
function of that name gives, to within one grey level. Images are float32 [N, height, width, 3] with whole pixels from
0 to 255, before and after every operation. Keras 3 only: runs on any backend, and compiled.
"""

import math

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
DRAWS = 4  # uniform random numbers that an operation takes: which, whether, how much, which sign
FILL = 128.0  # what a rotated, sheared or moved image shows beyond its border; timm's grey


def randaugment(
    images: KerasTensor, draws: KerasTensor, magnitude: float, std: float, probability: float
) -> KerasTensor:
    """Apply operations drawn at random, one after the other.

    `draws` is float32 [N, DRAWS * operations an image], uniform in [0, 1). An operation is done with `probability`,
    at a magnitude drawn from a normal distribution around `magnitude` and held between 0 and 10.
    """

    def step(index: KerasTensor, images: KerasTensor) -> KerasTensor:
        which, whether, how_much, side = (draws[:, index, column] for column in range(DRAWS))
        operation = ops.cast(which * len(OPERATIONS), "int32")
        operation = ops.where(whether < probability, operation, -1)
        level = magnitude + std * _normal(how_much) if std else ops.full_like(how_much, magnitude)
        sign = ops.where(side < 0.5, -1.0, 1.0)
        return transform(images, operation, ops.clip(level, 0.0, 10.0) / 10, sign)

    operations = draws.shape[1] // DRAWS
    draws = ops.reshape(draws, (-1, operations, DRAWS))
    # A loop, because the compiler would otherwise compute each step again for every use that the next makes of it.
    return ops.fori_loop(0, operations, step, images)


def transform(images: KerasTensor, operation: KerasTensor, level: KerasTensor, sign: KerasTensor) -> KerasTensor:
    """One operation on each image: `operation` int32 [N], an index into OPERATIONS, or -1 for none.

    `level` float32 [N] is the share of the highest magnitude, `sign` float32 [N] is -1 or 1 where the operation has
    two directions.
    """
    height, width = images.shape[1:3]

    def chosen(name: str) -> KerasTensor:
        return operation == OPERATIONS.index(name)

    def signed(name: str, limit: float) -> KerasTensor:
        return ops.where(chosen(name), sign * level * limit, 0.0)

    moved = affine(
        images,
        angle=signed("Rotate", math.radians(30)),
        shear=(signed("ShearX", 0.3), signed("ShearY", 0.3)),
        shift=(signed("TranslateXRel", 0.45 * width), signed("TranslateYRel", 0.45 * height)),
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
    geometric = chosen("Rotate") | chosen("ShearX") | chosen("ShearY")
    geometric = geometric | chosen("TranslateXRel") | chosen("TranslateYRel")
    changed = ops.where(geometric[:, None, None, None], moved, images)
    for name, result in results.items():
        changed = ops.where(chosen(name)[:, None, None, None], result, changed)
    return changed


def affine(
    images: KerasTensor,
    angle: KerasTensor,
    shear: tuple[KerasTensor, KerasTensor],
    shift: tuple[KerasTensor, KerasTensor],
) -> KerasTensor:
    """Turn, shear or move images, bilinear, grey beyond the border.

    `angle` float32 [N], radians counter-clockwise around the centre; `shear` and `shift`, each a pair (x, y) of
    float32 [N]: how far the point that a pixel shows is from it, for each pixel from the top left corner, and in
    pixels. At most one of them may be other than zero.
    """
    height, width = images.shape[1:3]
    x = ops.arange(width, dtype="float32")[None, None, :] + 0.5  # centres of the pixels
    y = ops.arange(height, dtype="float32")[None, :, None] + 0.5
    cos, sin = ops.cos(angle)[:, None, None], ops.sin(angle)[:, None, None]
    (shear_x, shear_y), (shift_x, shift_y) = ((a[:, None, None], b[:, None, None]) for a, b in (shear, shift))
    right, down = x - width / 2, y - height / 2  # of the centre
    from_x = cos * right - sin * down + width / 2 + shear_x * y + shift_x
    from_y = sin * right + cos * down + height / 2 + shear_y * x + shift_y
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)

    left, top = ops.floor(from_x - 0.5), ops.floor(from_y - 0.5)
    to_right, to_bottom = (from_x - 0.5 - left)[..., None], (from_y - 0.5 - top)[..., None]
    pixels = ops.reshape(images, (-1, 3))
    first = (ops.arange(ops.shape(images)[0]) * (height * width))[:, None, None]

    def at(row: KerasTensor, column: KerasTensor) -> KerasTensor:
        # A pixel beyond the border is its neighbour on the border.
        row = ops.cast(ops.clip(row, 0, height - 1), "int32")
        column = ops.cast(ops.clip(column, 0, width - 1), "int32")
        return ops.take(pixels, first + row * width + column, axis=0)

    upper = at(top, left) * (1 - to_right) + at(top, left + 1) * to_right
    lower = at(top + 1, left) * (1 - to_right) + at(top + 1, left + 1) * to_right
    return ops.where(inside[..., None], _whole(upper * (1 - to_bottom) + lower * to_bottom), FILL)


def autocontrast(images: KerasTensor) -> KerasTensor:
    """Stretch each channel to the whole range from 0 to 255; a channel of one value stays as it is."""
    low = ops.min(images, axis=(1, 2), keepdims=True)
    high = ops.max(images, axis=(1, 2), keepdims=True)
    stretched = _whole((images - low) * 255 / ops.maximum(high - low, 1))
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
    # Pillow's arithmetic: the pixels that have the brightest value do not count.
    darker = ops.max(ops.where(below < height * width, below, 0.0), axis=-1, keepdims=True)
    step = ops.floor((darker + 0.5) / 255)
    values = ops.floor((ops.floor(step / 2) + below + 0.5) / ops.maximum(step, 1))
    values = ops.where(step > 0, ops.minimum(values, 255.0), ops.arange(256, dtype="float32"))
    return ops.take(ops.reshape(values, (-1,)), bins, axis=0)


def posterize(images: KerasTensor, bits: KerasTensor) -> KerasTensor:
    """Keep the upper `bits`, whole float32 broadcast to the images, of the eight of each pixel."""
    step = 2.0 ** (8 - bits)
    return ops.floor(images / step) * step


def solarize(images: KerasTensor, threshold: KerasTensor) -> KerasTensor:
    """Invert pixels from `threshold` on."""
    return ops.where(images < threshold, images, 255 - images)


def solarize_add(images: KerasTensor, addition: KerasTensor) -> KerasTensor:
    """Brighten the darker half of the pixels by `addition`."""
    return ops.where(images < 128, ops.minimum(images + addition, 255.0), images)


def blend(start: KerasTensor | float, images: KerasTensor, factor: KerasTensor) -> KerasTensor:
    """`start` at factor 0, `images` at 1, and beyond them at more."""
    return ops.clip(_whole(start + factor * (images - start)), 0.0, 255.0)


def grey(images: KerasTensor) -> KerasTensor:
    """Luma by ITU-R 601-2, [N, height, width, 1], in Pillow's fixed-point arithmetic: its sums are exact in float32."""
    red, green, blue = images[..., 0:1], images[..., 1:2], images[..., 2:3]
    return ops.floor((red * 19595 + green * 38470 + blue * 7471 + 32768) / 65536)


def mean_grey(images: KerasTensor) -> KerasTensor:
    """The mean luma of each image, [N, 1, 1, 1]."""
    return ops.floor(ops.mean(grey(images), axis=(1, 2), keepdims=True) + 0.5)


def smooth(images: KerasTensor) -> KerasTensor:
    """Each pixel averaged with its eight neighbours, itself five times; the pixels of the border stay as they are."""
    height, width = images.shape[1:3]
    columns = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    squares = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    means = ops.floor((squares + 4 * images[:, 1:-1, 1:-1]) / 13 + 0.5)
    row, column = ops.arange(height)[:, None, None], ops.arange(width)[None, :, None]
    border = (row == 0) | (row == height - 1) | (column == 0) | (column == width - 1)
    return ops.where(border, images, ops.pad(means, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _whole(values: KerasTensor) -> KerasTensor:
    """Cut to whole numbers, as Pillow does; a whole number that rounding made a little less stays itself."""
    return ops.floor(values + 1e-3)


def _normal(uniform: KerasTensor) -> KerasTensor:
    """Standard normal from uniform random numbers."""
    return math.sqrt(2) * ops.erfinv(2 * uniform - 1)

"""Checks that sizes of the model and of a batch fit each other. The settings, the model and the training call them."""

from collections.abc import Mapping
from typing import Any

MOST_PARAMETERS = 10_000_000_000  # these take 40 GB of memory, and four times as much with the optimizer's state
MOST_TOKENS = 65_536  # an image of 256 x 256 patches


def check_model(model: Mapping[str, Any]) -> None:
    """Check the sizes of a ViT.

    Args:
        model: The sizes, by the names of the arguments of `trainer.vit.ViT`.

    Raises:
        ValueError: If the sizes do not fit each other, or the model would be too large.
    """
    image_size, patch_size, depth, width, heads, mlp_ratio = (
        model[name] for name in ("image_size", "patch_size", "depth", "width", "heads", "mlp_ratio")
    )
    if image_size % patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}: change one of them")
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}: change one of them")
    if model["conv_stem"] and (patch_size < 2 or patch_size & (patch_size - 1)):
        raise ValueError(
            f"patch_size {patch_size} is not a power of two above 1, which conv_stem needs: change it, or turn "
            "conv_stem off"
        )
    if model["conv_stem"] and width % (patch_size // 2):
        raise ValueError(
            f"width {width} is not a multiple of {patch_size // 2}, half of patch_size, which conv_stem needs: change "
            "it, or turn conv_stem off"
        )
    if model["mimetic"] and width % 4:
        raise ValueError(f"width {width} is not a multiple of 4, which mimetic needs: change it, or turn mimetic off")
    tokens = (image_size // patch_size) ** 2
    if tokens > MOST_TOKENS:
        raise ValueError(
            f"image_size {image_size} makes {tokens:,} patches of patch_size {patch_size}, but at most {MOST_TOKENS:,} "
            "are allowed: raise patch_size, or lower image_size"
        )
    parameters = depth * (4 + 2 * mlp_ratio) * width**2 + width * (3 * patch_size**2 + tokens)
    if parameters > MOST_PARAMETERS:
        raise ValueError(
            f"width {width}, depth {depth} and mlp_ratio {mlp_ratio} make about {parameters:,} parameters, but at most "
            f"{MOST_PARAMETERS:,} are allowed: lower one of them"
        )


def check_batch(batch_size: int, parts: int = 1) -> None:
    """Check that a batch can be split into parts.

    Args:
        batch_size: Images of the batch.
        parts: Number of parts that are computed on different devices, or one after the other.

    Raises:
        ValueError: If the parts would not be equal, or would not contain whole pairs of images.
    """
    if batch_size % (2 * parts):
        raise ValueError(
            f"batch_size {batch_size} is not a multiple of {2 * parts}: change batch_size, accumulate or workers, so "
            f"that each of its {parts} parts holds whole pairs of images, for Mixup and CutMix"
        )


def check_crops(augment: Mapping[str, Any]) -> None:
    """Check that the settings of crops fit each other.

    Args:
        augment: The settings of the augmentation, by name.

    Raises:
        ValueError: If they contradict each other, or no crop would fit into an image.
    """
    scale, ratio = augment["resized_crop_scale"], augment["resized_crop_ratio"]
    for name, bounds in ("resized_crop_scale", scale), ("resized_crop_ratio", ratio):
        if bounds and bounds[0] > bounds[1]:
            raise ValueError(f"{name} {list(bounds)} must begin with the smaller number: write {list(bounds[::-1])}")
    if not scale:
        if augment["stored_size"]:
            raise ValueError(
                f"stored_size {augment['stored_size']} needs resized crops: set resized_crop_scale, for example to "
                "[0.08, 1], or set stored_size to null"
            )
        return
    if augment["crop_padding"]:
        raise ValueError(
            f"crop_padding {augment['crop_padding']} must be 0 with resized_crop_scale, which crops instead: set "
            "crop_padding to 0, or resized_crop_scale to null"
        )
    # A crop of area a fits into a square image if its ratio is from a to 1/a.
    if ratio[0] > 1 / scale[0] or ratio[1] < scale[0]:
        raise ValueError(
            f"no crop with resized_crop_scale {list(scale)} and resized_crop_ratio {list(ratio)} fits into a square "
            "image: lower the first number of resized_crop_scale, or move resized_crop_ratio towards 1"
        )


def check_stored_size(stored_size: int | None, image_size: int) -> None:
    """Check that training images are kept at the size of the model's input or a larger one.

    Args:
        stored_size: Side at which training images are kept, in pixels. None: that of the model's input.
        image_size: Side of the model's input, in pixels.

    Raises:
        ValueError: If the images would be kept at a smaller size.
    """
    if stored_size is not None and stored_size < image_size:
        raise ValueError(
            f"augment.stored_size {stored_size} is less than image_size {image_size}: set it to {image_size} or more, "
            "or to null"
        )

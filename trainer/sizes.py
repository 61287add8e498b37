"""Sizes that fit together. The settings refuse others before anything runs, and so do the model and the training."""

from collections.abc import Mapping
from typing import Any

MOST_PARAMETERS = 10_000_000_000  # of a model: 40 GB of weights, and four times as much with the optimizer's
MOST_TOKENS = 65_536  # of an image: 256 x 256 patches


def check_model(model: Mapping[str, Any]) -> None:
    """Check the sizes of a ViT, given as the arguments that build it. Raises ValueError."""
    image_size, patch_size, depth, width, heads, mlp_ratio = (
        model[name] for name in ("image_size", "patch_size", "depth", "width", "heads", "mlp_ratio")
    )
    if image_size % patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}")
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    if model["conv_stem"] and (patch_size < 2 or patch_size & (patch_size - 1)):
        raise ValueError(f"conv_stem halves the image until patch_size {patch_size}: make that a power of two")
    if model["conv_stem"] and width % (patch_size // 2):
        raise ValueError(
            f"conv_stem doubles its channels up to width {width}: make that a multiple of {patch_size // 2}"
        )
    if model["mimetic"] and width % 4:
        raise ValueError(f"mimetic starts from sines and cosines: make width {width} a multiple of 4")
    tokens = (image_size // patch_size) ** 2
    if tokens > MOST_TOKENS:
        raise ValueError(
            f"image_size {image_size} makes {tokens:,} patches of patch_size {patch_size}, and at most {MOST_TOKENS:,} "
            "are allowed: raise patch_size, or lower image_size"
        )
    parameters = depth * (4 + 2 * mlp_ratio) * width**2 + width * (3 * patch_size**2 + tokens)
    if parameters > MOST_PARAMETERS:
        raise ValueError(
            f"width {width}, depth {depth} and mlp_ratio {mlp_ratio} make about {parameters:,} parameters, and at most "
            f"{MOST_PARAMETERS:,} are allowed: lower one of them"
        )


def check_batch(batch_size: int, parts: int = 1) -> None:
    """Check that a batch can be computed in so many parts. Raises ValueError."""
    if batch_size % (2 * parts):
        raise ValueError(
            f"batch_size {batch_size} is not a multiple of {2 * parts}: each of its {parts} parts must hold whole "
            "pairs of images, for Mixup and CutMix"
        )

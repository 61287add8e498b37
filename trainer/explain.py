"""Measures of a ViT's attention, which show what the model looks at. They need NumPy alone.

The argument `attention` is the output of `trainer.vit.ViT.explain` or of the SavedModel's signature `explain`: float32
[..., tokens, tokens], the weight with which each token (second to last axis) reads each token (last axis). Rows sum to
1. The tokens are the CLS token, if the model has one, and then the patches row by row. Any leading axes, shown as
`...`, are kept in the result.
"""

import math
from collections.abc import Callable

import numpy as np


def layout(tokens: int) -> tuple[int, bool]:
    """Infer how the tokens of a square ViT are arranged from their number.

    The number is enough: a square number minus 1 is never another square number, except for 1 and 0.

    Args:
        tokens: Number of tokens.

    Returns:
        Number of patches on a side of the image, and whether a CLS token precedes the patches.

    Raises:
        ValueError: If neither `tokens` nor `tokens - 1` is the square of a positive number.
    """
    for has_cls in (False, True):
        side = math.isqrt(tokens - has_cls)
        if side and side**2 == tokens - has_cls:
            return side, has_cls
    raise ValueError(
        f"{tokens} tokens are not a square of patches, with or without a CLS token: only ViTs with square images can "
        "be explained"
    )


def patch_attention(attention: np.ndarray) -> np.ndarray:
    """Return the attention that each patch gets from the token that the classifier reads.

    That token is the CLS token. A model without a CLS token classifies all tokens together, and the mean over them is
    returned. For the pool `mean` this is exactly what the classifier reads; the pool `seqpool` also weights the tokens
    by learned scores, which are not part of the attention.

    Args:
        attention: [..., tokens, tokens].

    Returns:
        [..., patches]. Rows are not renormalised: they sum to 1 minus `cls_self_attention`.
    """
    _, has_cls = layout(attention.shape[-1])
    return attention[..., 0, 1:] if has_cls else attention.mean(-2)


def cls_self_attention(attention: np.ndarray) -> np.ndarray:
    """Return the attention that the CLS token pays to itself rather than to patches.

    Args:
        attention: [..., tokens, tokens].

    Returns:
        [...]; 0 without a CLS token.
    """
    _, has_cls = layout(attention.shape[-1])
    return attention[..., 0, 0] if has_cls else np.zeros(attention.shape[:-2], attention.dtype)


def rollout(attention: np.ndarray) -> np.ndarray:
    """Compute attention rollout: the attention accumulated from the first block up to each block.

    In each block the attention is averaged over the heads, then averaged with the identity, which stands for the
    residual connection. The resulting matrices are multiplied from block to block (Abnar and Zuidema, 2020,
    https://arxiv.org/abs/2005.00928).

    Args:
        attention: Attention of all blocks, [..., depth, heads, tokens, tokens].

    Returns:
        [..., depth, tokens, tokens]; rows sum to 1.
    """
    with_residual = 0.5 * attention.mean(-3) + 0.5 * np.eye(attention.shape[-1], dtype=attention.dtype)
    with_residual /= with_residual.sum(-1, keepdims=True)
    flows = [with_residual[..., 0, :, :]]
    for block in range(1, with_residual.shape[-3]):
        flows.append(with_residual[..., block, :, :] @ flows[-1])
    return np.stack(flows, axis=-3)


def upsample(maps: np.ndarray, size: int) -> np.ndarray:
    """Enlarge maps of patches to the size of the image, by bilinear interpolation between the centres of the patches.

    Args:
        maps: One value for each patch, [..., patches].
        size: Pixels on a side of the image.

    Returns:
        One value for each pixel, [..., size, size], within the range of the map's values.
    """
    grid = math.isqrt(maps.shape[-1])
    position = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)  # of each pixel, in patches
    weights = np.maximum(0, 1 - abs(position[:, None] - np.arange(grid))).astype(maps.dtype)  # [size, grid]
    return weights @ maps.reshape(*maps.shape[:-1], grid, grid) @ weights.T


def entropy(maps: np.ndarray) -> np.ndarray:
    """Compute the entropy of maps, in bits: 0 if one patch has all the attention, log2(patches) if it is even.

    Args:
        maps: Attention to each patch, [..., patches]. Each map is normalised first, because the maps of
            `patch_attention` exclude the CLS token.

    Returns:
        [...]; 0 for a map of zeros.
    """
    shares = _normalize(maps)
    return 0 - (shares * np.log2(np.where(shares > 0, shares, 1))).sum(-1)


def attention_distance(attention: np.ndarray, patch_size: float) -> np.ndarray:
    """Compute the mean distance, in pixels, between a patch and the patches that it attends to.

    Distances are measured between centres of patches, weighted by attention and averaged over the attending patches.
    The CLS token has no place in the image: it is left out and the rows are renormalised (Raghu et al., 2021,
    https://arxiv.org/abs/2108.08810). A patch that attends to the CLS token alone counts as distance 0.

    Args:
        attention: [..., tokens, tokens].
        patch_size: Pixels on a side of a patch.

    Returns:
        [...], in pixels.
    """
    grid, has_cls = layout(attention.shape[-1])
    shares = _normalize(attention[..., has_cls:, has_cls:])
    return np.einsum("...qk,qk->...", shares, patch_distances(grid, patch_size).astype(shares.dtype)) / grid**2


def patch_distances(grid: int, patch_size: float) -> np.ndarray:
    """Compute the distances between the centres of all pairs of patches.

    Args:
        grid: Number of patches on a side of the image.
        patch_size: Pixels on a side of a patch.

    Returns:
        float64 [patches, patches], in pixels.
    """
    row, column = np.divmod(np.arange(grid**2), grid)
    return patch_size * np.hypot(row[:, None] - row, column[:, None] - column)


def rank_patches(maps: np.ndarray) -> np.ndarray:
    """Return the indices of the patches by descending value; patches of equal value are ordered row by row.

    Args:
        maps: One value for each patch, [..., patches].

    Returns:
        int64 [..., patches].
    """
    return np.argsort(-maps, axis=-1, kind="stable")


def removal_curves(
    images: np.ndarray, orders: np.ndarray, baseline: np.ndarray, answer: Callable[[np.ndarray], np.ndarray], steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure how a model's answer changes as patches are removed in a given order, and as they are added.

    These are the deletion and insertion curves of RISE (Petsiuk et al., 2018, https://arxiv.org/abs/1806.07421).
    Deletion removes the patches from the image in the given order; insertion adds them to an empty image. If the order
    puts the important patches first, the deletion curve falls early and the insertion curve rises early.

    Args:
        images: uint8 [N, size, size, 3].
        orders: Indices of the patches of each image, the first patch to move first; int [N, patches].
        baseline: Colour of a removed patch, uint8 [3].
        answer: The model, a function from images to probabilities [N, classes]. The curves follow the class that it
            predicts for the whole image.
        steps: Largest number of steps; fewer are taken if there are fewer patches.

    Returns:
        The share of the patches that were moved at each point, float64 [points], and the probabilities of deletion and
        of insertion at each point, float64 [N, points]. The number of points is at most `steps + 1`.
    """
    patches, size = orders.shape[1], images.shape[1]
    grid = math.isqrt(patches)
    turn = np.argsort(orders, axis=1)  # position of each patch in its order
    patch_of_pixel = np.arange(size) * grid // size  # along one axis
    turn = turn.reshape(-1, grid, grid)[:, patch_of_pixel][:, :, patch_of_pixel, None]
    counts = np.unique(np.round(np.linspace(0, patches, steps + 1)).astype(int))
    rows, target = np.arange(len(images)), answer(images).argmax(1)
    deletion, insertion = [], []
    for count in counts:
        moved = turn < count
        deletion.append(answer(np.where(moved, baseline, images))[rows, target])
        insertion.append(answer(np.where(moved, images, baseline))[rows, target])
    return counts / patches, np.stack(deletion, 1).astype("float64"), np.stack(insertion, 1).astype("float64")


def area_under_curve(shares: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Compute the area under curves by the trapezoidal rule.

    Args:
        shares: Positions of the points, from 0 to 1, [points].
        curves: Values at the points, [..., points].

    Returns:
        [...].
    """
    return np.trapezoid(curves, shares, axis=-1)


def position_similarity(positions: np.ndarray) -> np.ndarray:
    """Compute the cosine similarity of the position embeddings of all pairs of patches.

    Args:
        positions: Position embeddings, [tokens, width].

    Returns:
        [patches, patches].
    """
    _, has_cls = layout(len(positions))
    patches = positions[has_cls:]
    unit = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), np.finfo(patches.dtype).tiny)
    return unit @ unit.T


def filter_components(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the principal components of the filters of a patch embedding, the strongest first.

    Args:
        kernel: Filters, [patch_size, patch_size, channels, width].

    Returns:
        The components, unit vectors in the shape of a filter, [components, patch_size, patch_size, channels], and the
        share of the filters' variance that each explains, [components]. The sign of a component has no meaning.
    """
    filters = kernel.reshape(-1, kernel.shape[-1]).T
    _, singular, components = np.linalg.svd(filters - filters.mean(0), full_matrices=False)
    return components.reshape(-1, *kernel.shape[:-1]), singular**2 / (singular**2).sum()


def _normalize(values: np.ndarray) -> np.ndarray:
    """Scale rows to the sum 1; a row of zeros stays zero."""
    total = values.sum(-1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)

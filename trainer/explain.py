"""What a ViT looks at, as figures of its attention.

NumPy alone. `attention` is what `trainer.vit.ViT.explain` and the SavedModel's signature `explain` give: float32
[..., tokens, tokens], how much each token (second to last axis) takes from each (last axis); rows sum to 1. Tokens are
the patches row by row, and before them the CLS token, if the model has one. Leading axes are kept.
"""

import math
from collections.abc import Callable

import numpy as np


def layout(tokens: int) -> tuple[int, bool]:
    """Patches a side, and whether a CLS token stands before them.

    A square of patches has a whole number a side, and no two squares are neighbours: so the count tells.
    Raises ValueError where neither `tokens` nor one less is a square.
    """
    for has_cls in (False, True):
        side = math.isqrt(tokens - has_cls)
        if side and side**2 == tokens - has_cls:
            return side, has_cls
    raise ValueError(f"{tokens} tokens are no square of patches, with or without a CLS token: this is no square ViT")


def patch_attention(attention: np.ndarray) -> np.ndarray:
    """What the classifier's token takes from each patch: [..., tokens, tokens] to [..., patches].

    That token is CLS. Without one the classifier reads all tokens, and the mean of their rows stands in: exact in what
    the pool `mean` reads; the pool `seqpool` weighs the tokens by scores that attention does not tell. What CLS takes
    from itself is left out and the rest stays as it is, so a row sums to 1 less `to_itself`.
    """
    _, has_cls = layout(attention.shape[-1])
    return attention[..., 0, 1:] if has_cls else attention.mean(-2)


def to_itself(attention: np.ndarray) -> np.ndarray:
    """What CLS takes from itself, and so from no patch: [..., tokens, tokens] to [...]; 0 without a CLS token."""
    _, has_cls = layout(attention.shape[-1])
    return attention[..., 0, 0] if has_cls else np.zeros(attention.shape[:-2], attention.dtype)


def rollout(attention: np.ndarray) -> np.ndarray:
    """Attention through all blocks up to each: [..., depth, heads, tokens, tokens] to [..., depth, tokens, tokens].

    The mean over heads and, for the residual connection, the identity, half each; rows renormalised; multiplied from
    block to block (Abnar and Zuidema, 2020, https://arxiv.org/abs/2005.00928). Rows sum to 1.
    """
    mixed = 0.5 * attention.mean(-3) + 0.5 * np.eye(attention.shape[-1], dtype=attention.dtype)
    mixed /= mixed.sum(-1, keepdims=True)
    flows = [mixed[..., 0, :, :]]
    for block in range(1, mixed.shape[-3]):
        flows.append(mixed[..., block, :, :] @ flows[-1])
    return np.stack(flows, axis=-3)


def upsample(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps of patches [..., patches] over the image, [..., size, size]: bilinear between the patches' centres.

    No value is below the least or above the greatest of its map.
    """
    grid = math.isqrt(maps.shape[-1])
    place = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)  # of a pixel, in patches
    weights = np.maximum(0, 1 - abs(place[:, None] - np.arange(grid))).astype(maps.dtype)  # [size, grid]
    return weights @ maps.reshape(*maps.shape[:-1], grid, grid) @ weights.T


def entropy(maps: np.ndarray) -> np.ndarray:
    """Of maps [..., patches], in bits: 0 where one patch has it all, log2(patches) where all have the same.

    Each map is renormalised, for `seen` leaves CLS out. A map of zeros has 0.
    """
    shares = _shares(maps)
    return 0 - (shares * np.log2(np.where(shares > 0, shares, 1))).sum(-1)


def distance(attention: np.ndarray, patch_size: float) -> np.ndarray:
    """How far patches look, in pixels: [..., tokens, tokens] to [...], `patch_size` in pixels.

    The distance between the centres of two patches, weighted by attention, mean over the patches that look. CLS has no
    place: it is left out and the rows renormalised (Raghu et al., 2021, https://arxiv.org/abs/2108.08810). A patch
    that looks at CLS alone counts 0.
    """
    grid, has_cls = layout(attention.shape[-1])
    shares = _shares(attention[..., has_cls:, has_cls:])
    return np.einsum("...qk,qk->...", shares, distances(grid, patch_size).astype(shares.dtype)) / grid**2


def distances(grid: int, patch_size: float) -> np.ndarray:
    """Between the centres of the patches of a square, in pixels: float64 [patches, patches]."""
    row, column = np.divmod(np.arange(grid**2), grid)
    return patch_size * np.hypot(row[:, None] - row, column[:, None] - column)


def order(maps: np.ndarray) -> np.ndarray:
    """The patches of maps [..., patches] from the greatest value to the least; equal ones row by row. int64."""
    return np.argsort(-maps, axis=-1, kind="stable")


def removal(
    images: np.ndarray, orders: np.ndarray, baseline: np.ndarray, answer: Callable[[np.ndarray], np.ndarray], steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Does a model lose its answer with the patches that an order puts first (Petsiuk et al., 2018, RISE)?

    Deletion takes patches out of the image in that order, insertion puts them into an image that has none. A patch that
    is out is of the colour `baseline`. An order that tells what matters makes the one curve fall and the other rise
    early.

    Args:
        images: uint8 [N, size, size, 3].
        orders: int [N, patches], the patch that goes first first.
        baseline: uint8 [3].
        answer: images to probabilities [N, classes]. Followed is that of the class that each whole image is given.
        steps: at most so many changes from the first patch to the last.

    Returns the shares of the patches that were moved, float64 [steps + 1], and deletion and insertion at each, float64
    [N, steps + 1].

    https://arxiv.org/abs/1806.07421
    """
    patches, size = orders.shape[1], images.shape[1]
    grid = math.isqrt(patches)
    turn = np.argsort(orders, axis=1)  # at which each patch is moved
    of_pixel = np.arange(size) * grid // size
    turn = turn.reshape(-1, grid, grid)[:, of_pixel][:, :, of_pixel, None]
    counts = np.unique(np.round(np.linspace(0, patches, steps + 1)).astype(int))
    rows, target = np.arange(len(images)), answer(images).argmax(1)
    deletion, insertion = [], []
    for count in counts:
        moved = turn < count
        deletion.append(answer(np.where(moved, baseline, images))[rows, target])
        insertion.append(answer(np.where(moved, images, baseline))[rows, target])
    return counts / patches, np.stack(deletion, 1).astype("float64"), np.stack(insertion, 1).astype("float64")


def area(shares: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Under curves [..., steps + 1] over shares [steps + 1] from 0 to 1, by trapezoids: [...]."""
    return np.trapezoid(curves, shares, axis=-1)


def position_similarity(positions: np.ndarray) -> np.ndarray:
    """Cosine of each two patches' learned positions, [patches, patches], of position embeddings [tokens, width]."""
    _, has_cls = layout(len(positions))
    patches = positions[has_cls:]
    unit = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), np.finfo(patches.dtype).tiny)
    return unit @ unit.T


def filter_components(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of patch filters [patch_size, patch_size, channels, width], the strongest first.

    Returns unit vectors of that shape, [components, patch_size, patch_size, channels], and the share of the filters'
    variance in each. The sign of a component means nothing.
    """
    filters = kernel.reshape(-1, kernel.shape[-1]).T
    _, singular, components = np.linalg.svd(filters - filters.mean(0), full_matrices=False)
    return components.reshape(-1, *kernel.shape[:-1]), singular**2 / (singular**2).sum()


def _shares(values: np.ndarray) -> np.ndarray:
    total = values.sum(-1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)

"""Search for nearly equal images: a perceptual hash finds candidates, and a comparison of edges confirms them."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dct

SIDE = 32  # pixels on each side of the grey thumbnails that are compared
# Both bounds were chosen on CIFAR-10, so that they find the near-duplicates listed by ciFAIR (Barz and Denzler, 2020).
DISTANCE = 10  # largest number of bits, of 64, in which the hashes of a pair may differ
CORRELATION = 0.40  # smallest correlation of the edges of a pair

_MAX_CANDIDATES = 100  # for each image, because thousands of plain pictures may have similar hashes
_ROWS = 512  # images whose hashes are compared with all others at a time
_PAIRS = 4096  # pairs whose edges are compared at a time
_BLOCK = 8  # rows of distances that are computed at a time, few enough to stay in the cache of a core


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """Resize a grey image, uint8 [H, W], for pHash, to uint8 [32, 32]."""
    if grey.shape == (SIDE, SIDE):
        return grey
    # Pillow first shrinks a large image by a whole factor, to at least twice SIDE. The rest takes a fifth of the time.
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2))


def stack_thumbnails(thumbnails: Iterable[bytes]) -> np.ndarray:
    """Return uint8 [N, 32, 32] from the bytes of N thumbnails."""
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE)


def phash(thumbnails: np.ndarray) -> np.ndarray:
    """Compute pHash, as the library `imagehash` defines it.

    A bit is set if the coefficient of one of the 8 x 8 lowest frequencies of a cosine transform is above their median.
    The first coefficient is the most significant bit.

    Args:
        thumbnails: uint8 [N, 32, 32].

    Returns:
        uint64 [N].
    """
    rows = dct(thumbnails.astype(np.float64), axis=1)[:, :8]
    low = dct(rows, axis=2)[:, :, :8].reshape(-1, 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def close_pairs(
    first: np.ndarray, second: np.ndarray, distance: int = DISTANCE, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of hashes that differ in at most `distance` bits.

    All N x M distances are computed, at 1.6 ns each on one core.

    Args:
        first: uint64 [N], hashes.
        second: uint64 [M], hashes.
        distance: largest number of bits that may differ.
        most: largest number of pairs for each hash of `first`, of which the closest are kept. None keeps all pairs.

    Returns:
        Two arrays int64 [P]: the indices of each pair in `first` and in `second`.
    """
    found = [np.zeros((2, 0), np.int64)]
    for start in range(0, len(first), _BLOCK):
        differing = np.bitwise_count(first[start : start + _BLOCK, None] ^ second)
        for i, distances in enumerate(differing, start):
            (j,) = np.nonzero(distances <= distance)
            j = j[np.argsort(distances[j], kind="stable")[:most]]
            found.append(np.stack([np.full_like(j, i), j]))
    i, j = np.concatenate(found, axis=1)
    return i, j


def similar_pairs(
    first: pd.DataFrame, second: pd.DataFrame, correlation: float
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, np.ndarray]]:
    """Yield pairs of images that are nearly equal, but not equal, in parts that fit into memory.

    Args:
        first: a table with the columns digest, hash and thumbnail, and any others.
        second: another table with these columns. An image of `first` is compared with the images of `second` that have
            the closest hashes.
        correlation: smallest correlation of the edges of a pair.

    Yields:
        N rows of `first`, N rows of `second`, and the correlations of the N pairs, float [N].
    """
    hashes = second.hash.to_numpy(np.uint64)
    for start in range(0, len(first), _ROWS):
        part = first.iloc[start : start + _ROWS]
        i, j = close_pairs(part.hash.to_numpy(np.uint64), hashes, most=_MAX_CANDIDATES)
        for at in range(0, len(i), _PAIRS):
            ours, theirs = part.iloc[i[at : at + _PAIRS]], second.iloc[j[at : at + _PAIRS]]
            found = edge_correlation(stack_thumbnails(ours.thumbnail), stack_thumbnails(theirs.thumbnail))
            kept = (found >= correlation) & (ours.digest.to_numpy() != theirs.digest.to_numpy())
            yield ours[kept], theirs[kept], found[kept]


def edge_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation of the edges of pairs of thumbnails.

    Edges are the differences between neighbouring pixels, so brightness and colour have no influence. Unlike the hash,
    the correlation distinguishes two pictures of different dark spots on a plain sky.

    Args:
        first: uint8 [N, 32, 32], thumbnails.
        second: uint8 [N, 32, 32], the thumbnail to compare with each of them.

    Returns:
        float [N]: 1 for equal thumbnails, 0 if one of the two has no edges.
    """

    def edges(thumbnails: np.ndarray) -> np.ndarray:
        grey = thumbnails.astype(np.float32)
        both = [np.diff(grey, axis=axis).reshape(len(grey), SIDE * (SIDE - 1)) for axis in (1, 2)]
        flat = np.concatenate(both, axis=1)
        flat -= flat.mean(axis=1, keepdims=True)
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        unit: np.ndarray = np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)
        return unit

    correlation: np.ndarray = np.einsum("ij,ij->i", edges(first), edges(second))
    return correlation

"""Near-duplicate images: a perceptual hash finds candidates, and the edges of the images confirm them."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dct

from components.data.ingest.images import eight_bits

SIDE = 32  # pixels of the grey thumbnail that all of this looks at
# Chosen on CIFAR-10 against the near-duplicates that ciFAIR (Barz and Denzler, 2020) lists.
DISTANCE = 10  # bits of 64 in which the hashes of a pair may differ
CORRELATION = 0.40  # of the pair's edges, at least

_MOST_CANDIDATES = 100  # compared with one image, the closest: thousands of plain pictures have similar hashes
_ROWS = 512  # images whose hashes are compared with all others at a time
_PAIRS = 4096  # pairs whose edges are compared at a time
_BLOCK = 8  # rows of the table of distances that is in memory at a time: it stays in the cache of a core


def thumbnail(image: Image.Image) -> np.ndarray:
    """uint8 [32, 32]: the image in grey, as pHash sees it."""
    grey = eight_bits(image).convert("L")
    if grey.size != (SIDE, SIDE):
        grey = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(grey)


def unpack_bits(thumbnails: Iterable[bytes]) -> np.ndarray:
    """uint8 [N, 32, 32] of the bytes of N thumbnails."""
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE)


def phash(thumbnails: np.ndarray) -> np.ndarray:
    """uint64 [N] of thumbnails uint8 [N, 32, 32]: pHash as the library `imagehash` defines it.

    The signs of the 8 x 8 lowest frequencies of a cosine transform against their median, the first bit on the left.
    """
    rows = dct(thumbnails.astype(np.float64), axis=1)[:, :8]
    low = dct(rows, axis=2)[:, :, :8].reshape(-1, 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def close_pairs(
    first: np.ndarray, second: np.ndarray, distance: int = DISTANCE, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices i, j of the pairs whose hashes (uint64 [N], uint64 [M]) differ in at most `distance` bits.

    `most`: of each of `first` only so many, the closest: plain pictures have hashes alike by the thousands.
    All N x M distances are computed: 1.6 ns each on one core.
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
    """Yield pairs of different images that show nearly the same, in parts that fit into memory.

    Args:
        first: the columns digest, hash and thumbnail, and any others.
        second: as `first`. An image is compared with those whose hashes are closest to its own.
        correlation: of the edges of a pair, at least.

    Yields:
        Rows of `first`, the same number of rows of `second`, and the correlation of each pair, float [N].
    """
    hashes = second.hash.to_numpy(np.uint64)
    for start in range(0, len(first), _ROWS):
        part = first.iloc[start : start + _ROWS]
        i, j = close_pairs(part.hash.to_numpy(np.uint64), hashes, most=_MOST_CANDIDATES)
        for at in range(0, len(i), _PAIRS):
            ours, theirs = part.iloc[i[at : at + _PAIRS]], second.iloc[j[at : at + _PAIRS]]
            found = edge_correlation(unpack_bits(ours.thumbnail), unpack_bits(theirs.thumbnail))
            kept = (found >= correlation) & (ours.digest.to_numpy() != theirs.digest.to_numpy())
            yield ours[kept], theirs[kept], found[kept]


def edge_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float [N]: how well the edges of pairs of thumbnails (uint8 [N, 32, 32] each) agree, 1 for equal ones.

    Pearson's correlation of the differences between neighbouring pixels: brightness and colour do not matter to it,
    and two dark spots on a plain sky do not agree as they do in the hash. 0 where one of the two is without edges.
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

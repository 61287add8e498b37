"""Measures of similar images: a perceptual hash finds candidates, and a comparison of edges confirms them."""

from collections.abc import Iterable

import numpy as np
from PIL import Image
from scipy.fft import dct

SIDE = 32  # pixels on each side of the grey thumbnails that are compared
# Smallest correlation of the edges of a pair. It and `DISTANCE` in `candidates` were chosen on CIFAR-10, so that they
# find the near-duplicates listed by ciFAIR (Barz and Denzler, 2020).
CORRELATION = 0.40


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

"""Search for pairs of similar perceptual hashes that does not compare all pairs. Imports neither TFX nor TensorFlow.

Two hashes are compared only if they share a band, which is a run of 9 bits. A hash has 14 bands: its bits are divided
into 7 bands in the order of the transform's rows, and again in the order of its columns. The first bit belongs to no
band, because it is set in every hash.

A pair that differs in at most 6 bits always shares a band, because 6 bits cannot touch 7 bands. On CIFAR-10, 1 of 28
pairs of hashes is compared, and of the pairs that differ in at most 10 bits and are confirmed by their edges, 99.5 %
are found. Eleven bands of 5 or 6 bits would find every pair, but 1 of 5 pairs would have to be compared.
"""

from collections.abc import Iterator

import numpy as np

DISTANCE = 10  # largest number of bits, of 64, in which the hashes of a pair may differ

_BITS = 9  # of a band
_BANDS = 7  # in each of the two orders of bits
_PARTS_BITS = 5  # of a band, whose values divide the images among workers
# Limits for images that resemble very many others, such as thousands of plain pictures. In order of their hashes, an
# image is compared with this number of the next images that share the band. At a million photographs, few bands are
# shared by more. A window of 128 finds almost as many pairs in the 60,000 images of CIFAR-10 (99.4 %).
_WINDOW = 2048
_MAX_CANDIDATES = 100  # of an image in each band; the closest ones are kept
_COMPARISONS = 2**18  # pairs of hashes that are compared at a time, few enough to stay in the cache of a core

# An image in the search. `code` is its hash with the bits in another order.
IMAGE = np.dtype([("code", "u8"), ("digest", "S16"), ("split", "u1"), ("label", "i8")])


def divide_by_bands(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Divide images so that any two that share a band are in the same part of that band.

    Args:
        images: IMAGE [N], with pHashes as codes.

    Yields:
        The number of a part, and its images. In their codes, the bits of the band come first.
    """
    for band, codes in enumerate(_codes(images["code"])):
        parts = codes >> np.uint64(64 - _PARTS_BITS)
        of_band = images.copy()
        of_band["code"] = codes
        for part in np.unique(parts).tolist():
            yield band << _PARTS_BITS | part, of_band[parts == part]


def _codes(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the hashes for each band, uint64 [N], with the bits of the band in front and the first bit at the end."""
    squares = np.unpackbits(hashes.astype(">u8").view(np.uint8)).reshape(-1, 8, 8)
    by_column = np.packbits(squares.transpose(0, 2, 1)).view(">u8").astype(np.uint64)
    for ordered in (hashes, by_column):
        first, others = ordered >> np.uint64(63), ordered << np.uint64(1)
        for band in range(_BANDS):
            # The 63 bits are rotated; they are the upper bits of `others`.
            left, right = np.uint64(_BITS * band), np.uint64(63 - _BITS * band)
            yield others << left | others >> right & ~np.uint64(1) | first


def similar_pairs(images: np.ndarray) -> Iterator[np.ndarray]:
    """Find the pairs of images in one part whose hashes differ in at most DISTANCE bits.

    Only pairs of different pixels are found, and only those of which the splits or the labels differ. The result does
    not depend on the order of the images.

    Args:
        images: IMAGE [N], the images of a part. Repeated rows count once.

    Yields:
        The digests of pairs, S16 [P, 2].
    """
    high, low = images["digest"].copy().view(">u8").reshape(-1, 2).T
    images = images[np.lexsort((images["label"], images["split"], low, high, images["code"]))]
    images = images[np.append(True, images[1:] != images[:-1])]
    codes, digests = images["code"], images["digest"]
    pictures = np.cumsum(np.append(True, digests[1:] != digests[:-1]))
    ends = np.flatnonzero(np.append(np.diff(codes >> np.uint64(64 - _BITS)) != 0, True)) + 1
    for start, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
        rows = 1 + _COMPARISONS // min(end - start, _WINDOW)
        for first in range(start, end - 1, rows):
            last = min(first + rows, end)
            distances = np.bitwise_count(codes[first:last, None] ^ codes[first : last + _WINDOW][None, : end - first])
            close = np.flatnonzero(distances <= DISTANCE)  # faster than the search in two dimensions
            i, j = np.divmod(close, distances.shape[1])
            distance, i, j = distances.ravel()[close], i + first, j + first
            allowed = (j > i) & (j - i <= _WINDOW) & (pictures[i] != pictures[j])
            i, j, distance = i[allowed], j[allowed], distance[allowed]
            kept = np.zeros(len(i), bool)
            for kind in ("split", "label"):
                differing = np.flatnonzero(images[kind][i] != images[kind][j])
                kept[differing[_closest(i[differing] - first, distance[differing])]] = True
            if kept.any():
                yield np.stack([digests[i[kept]], digests[j[kept]]], axis=1)


def _closest(i: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return the positions of the closest pairs of each image.

    Args:
        i: number of the first image of each pair, int [P], in ascending order.
        distance: differing bits of each pair, int [P].
    """
    if len(i) <= _MAX_CANDIDATES:
        return np.arange(len(i))
    order = np.argsort(i * (DISTANCE + 1) + distance, kind="stable")
    firsts = np.searchsorted(i, i)  # `order` does not move a pair out of its image's range
    return order[np.arange(len(i)) - firsts < _MAX_CANDIDATES]

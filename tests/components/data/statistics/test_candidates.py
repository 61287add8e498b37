import numpy as np
import pytest

from components.data.statistics.candidates import DISTANCE, IMAGE, divide_by_bands, similar_pairs


def images(hashes, splits=0, labels=0):
    rng = np.random.default_rng(5)
    table = np.zeros(len(hashes), IMAGE)
    table["code"], table["split"], table["label"] = hashes, splits, labels
    table["digest"] = [b"%16d" % n for n in rng.permutation(len(hashes))]
    return table


def found(table):
    """Return the pairs as sets of two row numbers."""
    rows = {digest: row for row, digest in enumerate(table["digest"].tolist())}
    parts = [pairs for _, part in divide_by_bands(table) for pairs in similar_pairs(part)]
    return {frozenset(map(rows.get, pair)) for pairs in parts for pair in pairs.tolist()}


@pytest.fixture(scope="module")
def neighbours():
    """Random hashes, and for each of them a hash that differs in 0 to 12 of the bits that belong to bands."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(2**63, 2**64, 2000, np.uint64)
    distances = rng.integers(0, 13, len(hashes))
    flips = [sum(1 << int(bit) for bit in rng.choice(63, distance, replace=False)) for distance in distances]
    return hashes, hashes ^ np.array(flips, np.uint64), distances


def test_pairs_of_up_to_six_bits_are_always_found_and_most_of_up_to_ten(neighbours):
    hashes, others, distances = neighbours
    table = images(np.concatenate([hashes, others]), splits=np.repeat([0, 1], len(hashes)))
    pairs = found(table)
    share = [
        np.mean([frozenset({n, n + len(hashes)}) in pairs for n in np.flatnonzero(distances == distance)])
        for distance in range(13)
    ]
    assert share[:7] == [1] * 7 and min(share[:9]) > 0.98 and share[10] > 0.9
    assert share[DISTANCE + 1 :] == [0, 0]


def test_pairs_of_equal_split_and_label_are_not_found():
    hashes = np.full(4, 2**63 + 5, np.uint64)
    table = images(hashes, splits=[0, 0, 0, 1], labels=[3, 3, 4, 4])
    assert found(table) == {frozenset(pair) for pair in ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))}


def test_equal_pixels_are_not_a_pair():
    table = images(np.full(2, 2**63, np.uint64), splits=[0, 1])
    table["digest"][1] = table["digest"][0]
    assert found(table) == set()


def test_digests_keep_zeros_at_their_end():
    table = images(np.full(2, 2**63, np.uint64), splits=[0, 1])
    table["digest"] = [b"\1" + bytes(15), b"\2" + bytes(15)]
    [(_, part), *_] = divide_by_bands(table)
    [pairs] = similar_pairs(part)
    assert sorted(pairs.view("V16").tolist()[0]) == [b"\1" + bytes(15), b"\2" + bytes(15)]


def test_an_image_has_a_bounded_number_of_candidates():
    rng = np.random.default_rng(2)
    plain = np.uint64(2**63) | rng.integers(0, 2**10, 3000, np.uint64)
    [(_, part), *_] = divide_by_bands(images(plain, splits=rng.integers(0, 3, 3000)))
    pairs = np.concatenate([*similar_pairs(part)])
    assert 0 < max(np.unique(pairs[:, 0], return_counts=True)[1]) <= 200

"""Figures of attention, against cases that are known or worked out by hand."""

import numpy as np
import pytest

from trainer import explain
from trainer.vit import ViT

RNG = np.random.default_rng(0)


def attention(*shape, tokens=5):
    weights = RNG.random((*shape, tokens, tokens), "float32") ** 4
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize(("tokens", "found"), [(65, (8, True)), (64, (8, False)), (5, (2, True)), (1, (1, False))])
def test_the_count_of_tokens_tells_the_patches(tokens, found):
    assert explain.layout(tokens) == found


def test_tokens_that_are_no_square_are_named():
    with pytest.raises(ValueError, match="7 tokens are no square"):
        explain.layout(7)


def test_what_cls_sees_and_takes_from_itself_is_its_whole_row():
    given = attention(3, 2, 4)
    seen, itself = explain.patch_attention(given), explain.to_itself(given)
    assert seen.shape == (3, 2, 4, 4) and seen.min() >= 0 and seen.max() <= 1
    np.testing.assert_allclose(seen.sum(-1) + itself, 1, atol=1e-6)
    np.testing.assert_array_equal(seen[1, 0, 2], given[1, 0, 2, 0, 1:])


def test_without_cls_the_mean_row_stands_in():
    given = attention(2, tokens=4)
    np.testing.assert_allclose(explain.patch_attention(given)[1], given[1].sum(0) / 4, rtol=1e-6)
    np.testing.assert_allclose(explain.patch_attention(given).sum(-1), 1, atol=1e-6)
    assert (explain.to_itself(given) == 0).all()


@pytest.mark.parametrize("pool", ["cls", "mean", "seqpool"])
def test_attention_of_a_model_has_rows_and_flows_that_sum_to_1(pool):
    model = ViT(image_size=8, patch_size=4, classes=2, depth=3, width=8, heads=2, pool=pool)
    given = np.asarray(model.explain(RNG.integers(0, 256, (2, 8, 8, 3), "uint8"))[1])
    assert explain.layout(given.shape[-1]) == (2, pool == "cls")
    for rows in given, explain.rollout(given):
        np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-5)
        assert rows.min() >= 0 and rows.max() <= 1
    assert explain.rollout(given).shape == (2, 3, *given.shape[-2:])


def test_rollout_of_one_head_by_hand():
    """One patch and CLS. Halved with the identity the blocks are [[.75, .25], [0, 1]] and [[.5, .5], [.2, .8]]."""
    blocks = np.array([[[[0.5, 0.5], [0.0, 1.0]]], [[[0.0, 1.0], [0.4, 0.6]]]], "float32")
    flows = explain.rollout(blocks)
    np.testing.assert_allclose(flows[0], [[0.75, 0.25], [0, 1]])
    # CLS after block 2: half of what it was, [.75, .25], and half of the patch, [0, 1].
    np.testing.assert_allclose(flows[1], [[0.375, 0.625], [0.15, 0.85]], rtol=1e-6)
    np.testing.assert_allclose(explain.patch_attention(flows), [[0.25], [0.625]], rtol=1e-6)


def test_rollout_takes_the_mean_over_heads_and_keeps_the_images_apart():
    given = attention(2, 3, 4)
    np.testing.assert_allclose(explain.rollout(given)[1], explain.rollout(given[1].mean(1, keepdims=True)), rtol=1e-5)


def test_an_upsampled_map_keeps_its_range_and_its_place():
    given = RNG.random((3, 4), "float32")
    over = explain.upsample(given, 8)
    assert over.shape == (3, 8, 8) and over.dtype == np.float32
    assert (over.max((1, 2)) <= given.max(1) + 1e-6).all() and (over.min((1, 2)) >= given.min(1) - 1e-6).all()
    np.testing.assert_allclose(over[:, [0, 0, 7, 7], [0, 7, 0, 7]], given, rtol=1e-6)  # corners: one patch alone
    np.testing.assert_allclose(over[0, 0, 3], 0.625 * given[0, 0] + 0.375 * given[0, 1], rtol=1e-6)
    np.testing.assert_allclose(explain.upsample(np.full((1, 9), 0.25), 10), 0.25)


def test_entropy_of_one_patch_of_all_and_of_what_is_left_without_cls():
    one = np.eye(16, dtype="float32")[3]
    np.testing.assert_allclose(explain.entropy(np.stack([one, one * 0.1])), 0)
    np.testing.assert_allclose(explain.entropy(np.full((2, 16), 0.02)), 4)
    np.testing.assert_allclose(explain.entropy(np.array([0.25, 0.25, 0, 0])), 1)
    assert explain.entropy(np.zeros(4)) == 0


def test_distance_of_known_attention():
    itself = np.eye(5, dtype="float32")
    np.testing.assert_allclose(explain.distance(itself, 4), 0)
    # Of 2 x 2 patches each is 0, 1, 1 and the diagonal away, in patches.
    uniform = np.full((3, 5, 5), 0.2, "float32")
    np.testing.assert_allclose(explain.distance(uniform, 4), 4 * (2 + 2**0.5) / 4, rtol=1e-6)
    np.testing.assert_allclose(explain.distance(uniform[:, 1:, 1:], 4), 4 * (2 + 2**0.5) / 4, rtol=1e-6)
    to_the_right = np.zeros((5, 5), "float32")
    to_the_right[0, 0] = 1
    to_the_right[1:, 0] = 0.5  # of CLS, which counts for nothing
    to_the_right[[1, 2, 3, 4], [2, 1, 4, 3]] = 0.5
    np.testing.assert_allclose(explain.distance(to_the_right, 4), 4)
    only_cls = np.zeros((5, 5))
    only_cls[:, 0] = 1
    assert explain.distance(only_cls, 4) == 0


def test_order_is_from_the_greatest_down():
    assert explain.order(np.array([[0.1, 0.4, 0.1, 0.3]])).tolist() == [[1, 3, 0, 2]]


def only_patch(number):
    """A model of 4 x 4 pixels in 2 x 2 patches that is sure of class 1 while one patch is white."""

    def answer(images):
        row, column = divmod(number, 2)
        white = (images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] == 255).all((1, 2, 3))
        return np.stack([1.0 - white, white], 1)

    return answer


def test_a_model_that_looks_at_one_patch_loses_its_answer_with_it():
    images = np.full((2, 4, 4, 3), 255, "uint8")
    orders = np.array([[2, 0, 1, 3], [0, 1, 3, 2]])
    shares, deletion, insertion = explain.removal(images, orders, np.array([9, 9, 9], "uint8"), only_patch(2), 4)
    assert shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert deletion.tolist() == [[1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert insertion.tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 0, 1]]
    assert explain.area(shares, deletion).tolist() == [0.125, 0.875]
    assert explain.area(shares, insertion).tolist() == [0.875, 0.125]


def test_curves_take_no_more_steps_than_there_are_patches_and_end_where_they_must():
    images = RNG.integers(0, 256, (3, 4, 4, 3), "uint8")
    asked = []

    def answer(given):
        asked.append(given)
        return np.tile([0.25, 0.75], (len(given), 1))

    shares, deletion, _ = explain.removal(images, np.tile(np.arange(4), (3, 1)), np.uint8([1, 2, 3]), answer, 100)
    assert shares.tolist() == [0, 0.25, 0.5, 0.75, 1] and (deletion == 0.75).all()
    whole, (nothing_out, nothing_in), (all_out, all_in) = asked[0], asked[1:3], asked[-2:]
    for found in whole, nothing_out, all_in:
        np.testing.assert_array_equal(found, images)
    assert all(np.all(found == [1, 2, 3]) and found.dtype == np.uint8 for found in (nothing_in, all_out))


def test_positions_are_like_themselves_and_cls_has_no_place():
    positions = np.array([[9, 9], [1, 0], [0, 2], [-3, 0], [0, 1]], "float32")
    found = explain.position_similarity(positions)
    np.testing.assert_allclose(found, [[1, 0, -1, 0], [0, 1, 0, 1], [-1, 0, 1, 0], [0, 1, 0, 1]], atol=1e-6)


def test_filters_made_of_two_patterns_have_two_components():
    patterns = np.linalg.qr(RNG.normal(size=(12, 12)))[0][:2]
    kernel = (RNG.normal(size=(40, 2)) * [3, 1] @ patterns).T.reshape(2, 2, 3, 40)
    components, shares = explain.filter_components(kernel)
    assert components.shape == (12, 2, 2, 3)
    np.testing.assert_allclose(shares.sum(), 1)
    assert shares[0] > shares[1] > 0.01 and shares[2] < 1e-12
    np.testing.assert_allclose(np.linalg.norm(components[:2].reshape(2, 12) @ patterns.T, axis=1), 1, atol=1e-9)

import numpy as np

from pipeline.drawing import attention_maps

RNG = np.random.default_rng(0)


def rgba(patches, side):
    return np.array(attention_maps.colour_map(np.float32(patches), side).convert("RGBA"))


def test_a_value_has_one_colour_whatever_else_is_in_the_map():
    lone, among = rgba([0.04] * 4, 8), rgba([0.04, 1, 1, 1], 8)
    assert (lone == lone[0, 0]).all() and (among[0, 0] == lone[0, 0]).all()


def test_even_attention_has_one_colour_however_many_patches_share_it():
    assert (rgba([1 / 4] * 4, 1) == rgba([1 / 64] * 64, 1)).all()


def test_more_attention_is_redder_and_hides_more_and_none_hides_nothing():
    shown = np.array([rgba([value / 64] * 64, 1)[0, 0] for value in (0, 1, 4, 16, 64)], int)
    assert shown[0, 3] == 0 and (np.diff(shown[:4, 3]) > 0).all() and (np.diff(shown[:4, 1]) < 0).all()
    assert (shown[4] == shown[3]).all()


def test_an_overlay_is_coloured_only_where_there_is_attention():
    pixels = RNG.integers(0, 256, (8, 8, 3), "uint8")
    picture = np.array(attention_maps.overlay(pixels, np.eye(16, dtype="float32")[15]), int)
    assert picture.shape == (256, 256, 3)
    assert (picture[:128, :128].max(-1) == picture[:128, :128].min(-1)).all()
    assert (picture[224:, 224:, 0] - picture[224:, 224:, 1] > 100).all()


def test_the_grid_is_drawn_only_between_patches():
    picture = np.array(attention_maps.draw_grid(np.full((8, 8, 3), 99, "uint8"), 2))
    marked = (picture != 99).all(-1)
    assert marked[128].all() and marked[:, 128].all() and marked.sum() == 4 * 256 - 4


def test_the_similarity_of_a_patch_to_itself_is_full_red_at_its_place():
    picture = np.array(attention_maps.similarities(np.eye(4, dtype="float32") * 2 - 1))
    side = (picture.shape[0] - 3) // 2  # of one map
    for number in range(4):
        row, column = divmod(number, 2)
        tile = picture[row * (side + 3) :, column * (side + 3) :][:side, :side]
        red = (tile == [178, 24, 43]).all(-1)
        blue = (tile == [33, 102, 172]).all(-1)
        assert red[row * side // 2, column * side // 2] and red.sum() == side**2 / 4 and blue.sum() == side**2 * 3 / 4

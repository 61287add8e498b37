"""Figures of a known model with 8 x 8 pixels in 2 x 2 patches. It predicts class 1 while one patch is bright."""

from pathlib import Path

import numpy as np
import pytest

from components.errors import DataRefused
from pipeline.drawing.explain_model import measure
from pipeline.explainable_model import Explanation, Model

NEEDED = 2  # row 2, column 1


def known_model(looks_at):
    """Build a model of one block and one head. CLS attends only to the patch `looks_at`, and each patch to itself."""

    def answer(images):
        bright = images[:, 4:, :4].mean((1, 2, 3)) / 255
        return np.stack([1 - bright, bright], 1).astype("float32")

    def explain(encoded):
        valid = np.array([image != b"broken" for image in encoded])
        whole = [image for image in encoded if image != b"broken"]
        pixels = np.stack([np.frombuffer(image, "uint8").reshape(8, 8, 3) for image in whole])
        attention = np.eye(5, dtype="float32")
        attention[0, [0, 1 + looks_at]] = 0, 1
        return Explanation(valid, pixels, answer(pixels), np.tile(attention, (len(pixels), 1, 1, 1, 1)))

    return Model(Path("known"), 8, 4, True, ["dark", "bright"], None, answer, explain)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    made = rng.integers(0, 60, (6, 8, 8, 3), "uint8")
    made[:, 4:, :4] = 255
    return [image.tobytes() for image in made]


def test_a_map_of_the_decisive_patches_is_better_than_chance(images):
    told = []
    found = measure(known_model(NEEDED), "here", images, [1] * 6, 6, told.append)
    deletion, insertion = found.removal.curves
    assert deletion.rollout[0] == 1 and deletion.rollout[1] == pytest.approx(deletion.rollout[-1])
    assert insertion.rollout[1] == 1
    assert deletion.rollout_area < deletion.random_area and insertion.rollout_area > insertion.random_area
    assert len(deletion.random_areas) == 5 and len(set(deletion.random_areas)) > 1
    for curve in deletion, insertion:
        assert curve.interval[0] <= curve.difference <= curve.interval[1]
        assert curve.line.startswith(f"{curve.name}: area {curve.rollout_area:.4f} in the order of rollout")
        assert curve.line.endswith("better than chance")
    assert found.removal.shares == [0, 0.25, 0.5, 0.75, 1] and found.removal.images == 6
    assert any("random order 5 of 5" in line for line in told)


def test_a_map_of_other_patches_is_not_better_than_chance(images):
    found = measure(known_model(3 - NEEDED), "here", images, [1] * 6, 6, print)
    assert {curve.verdict for curve in found.removal.curves} <= {"worse than chance", "not distinguishable from chance"}
    assert found.removal.curves[1].rollout_area < 0.6


def test_a_single_image_is_not_distinguishable_from_chance(images):
    found = measure(known_model(NEEDED), "here", images[:1], [1], 1, print)
    assert {curve.verdict for curve in found.removal.curves} == {"not distinguishable from chance"}
    assert {curve.interval for curve in found.removal.curves} == {(-1, 1)}


def test_figures_leave_out_images_that_do_not_decode(images):
    found = measure(known_model(NEEDED), "here", [b"broken", *images], [0, 1, 1, 1, 0, 0, 0], 0, print)
    assert found.images == 6 and found.accuracy == 0.5 and found.removal is None
    head, mean, rollout = 0, 1, 2
    assert found.columns == ["head 1", "mean", "rollout"]
    assert found.entropy[0][head] == 0 and found.most_entropy == 2
    assert found.distance[0][head] == found.distance[0][mean] == 0
    assert found.even_distance == pytest.approx(4 * (2 + 2**0.5) / 4)
    assert found.to_itself[0] == [0, 0, 0.5] and found.distance[0][rollout] == 0


def test_curves_use_only_images_that_decode(images):
    found = measure(known_model(NEEDED), "here", [*[b"broken"] * 127, *images], [1] * 133, 4, print)
    assert found.images == 6 and found.removal.images == 4


def test_data_without_an_image_that_decodes_is_refused(images):
    model = known_model(NEEDED)
    nothing = np.zeros((0, 8, 8, 3), "uint8")
    empty = Explanation(np.zeros(1, bool), nothing, np.zeros((0, 2)), np.zeros((0, 1, 1, 5, 5), "float32"))
    blind = Model(model.path, 8, 4, True, model.classes, None, model.answer, lambda _: empty)
    with pytest.raises(DataRefused, match="none of 1 test images of here decodes"):
        measure(blind, "here", [b"broken"], [0], 1, print)

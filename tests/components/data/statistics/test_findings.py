import numpy as np
import pytest

from tests.helpers import all_pairs
from tests.helpers.spans import encoded, picture


@pytest.fixture
def planted(measured):
    """Table of 240 pictures, of which a third have an equal or nearly equal twin in any split, with any label."""
    rng = np.random.default_rng(0)
    splits = {"train": [], "val": [], "test": []}

    def place(image):
        splits[rng.choice([*splits], p=[0.6, 0.2, 0.2])].append((image, int(rng.integers(3))))

    for seed in range(180):
        pixels = picture(seed)
        place(encoded(pixels))
        if seed % 3 == 0:
            noise = rng.normal(0, rng.choice([0, 5, 20, 40]), pixels.shape)
            place(encoded(np.clip(pixels + noise, 0, 255).astype("uint8")))
    return measured(**splits)


def test_twins_and_conflicts_equal_those_of_all_pairs(planted, find):
    twins, conflicts = find(planted)
    wanted = all_pairs.twins(planted)
    found = {(row.split, row.id, row.twin_split): (row.exact, row.correlation) for row in twins.itertuples()}
    assert found.keys() == wanted.keys() and len(found) > 20
    for key, (exact, correlation) in wanted.items():
        assert found[key] == (exact, pytest.approx(correlation, abs=1e-6))
    assert {*zip(conflicts.split, conflicts.id, strict=True)} == all_pairs.contradictions(planted)
    assert len(conflicts) > 10


def test_the_order_of_the_images_has_no_influence(planted, find):
    shuffled = planted.sample(frac=1, random_state=1)
    for table, other in zip(find(planted), find(shuffled), strict=True):
        columns = list(table)
        assert table.sort_values(columns).to_numpy().tolist() == other.sort_values(columns).to_numpy().tolist()

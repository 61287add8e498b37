"""The photographs of tests and benchmarks resemble those of cameras, and are always the same."""

import io
from statistics import mean

import numpy as np
from PIL import Image

from tests.helpers.photographs import CLASS_NAMES, photograph, write_photographs


def test_sizes_are_those_of_photographs():
    encoded = [photograph(number % 10, number) for number in range(50)]
    assert 42_000 < mean(map(len, encoded)) < 50_000
    assert len(set(encoded)) == 50
    assert Image.open(io.BytesIO(photograph(0, 0, (640, 480)))).size == (640, 480)
    assert len(photograph(0, 0, quality=75)) < len(photograph(0, 0, quality=92))


def test_the_same_seed_makes_the_same_folder(tmp_path):
    for folder in ("one", "two"):
        write_photographs(tmp_path / folder, 20, (100, 75))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.jpg"))
    assert [str(path) for path in files[:2]] == ["eight/00008.jpg", "eight/00018.jpg"]
    assert {path.parent.name for path in files} == set(CLASS_NAMES) and len(files) == 20
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_the_colour_in_the_middle_tells_the_class():
    def colour(label):
        middles = [Image.open(io.BytesIO(photograph(label, seed))).crop((150, 90, 350, 280)) for seed in range(30)]
        return np.mean([np.asarray(middle).mean(axis=(0, 1)) for middle in middles], axis=0)

    red, green, blue = (colour(label) for label in (0, 3, 6))
    assert red.argmax() == 0 and green.argmax() == 1 and blue.argmax() == 2

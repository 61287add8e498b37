import io
import re

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from components.data.gate.bounds import CHECKS, DataGateSettings
from components.data.gate.checks import judge
from components.data.gate.page import largest_and_smallest, render, sampled_classes
from components.data.pictures import ExamplePicture, Exhibit
from components.data.statistics.exhibits import MAX_EXHIBITS
from components.data.statistics.figures import BRIGHTNESS, SHARPNESS, SIDES, ImageFigures, SplitFigures


def figures(classes):
    labels = {f"class {number} {'x' * 240}": 10 + number for number in range(classes)}
    split = SplitFigures(
        images=sum(labels.values()),
        bytes=1,
        undecodable={},
        outside_labels=0,
        labels=labels,
        formats={"PNG RGB": 1},
        sizes={"32x32": 1},
        different_sizes=1,
        smallest_side=32,
        mean=[1, 2, 3],
        spread=[1, 2, 3],
        brightness=[1] * (len(BRIGHTNESS) - 1),
        sharpness=[1] * (len(SHARPNESS) - 1),
        sides=[1] * (len(SIDES) - 1),
        duplicates=0,
    )
    splits = dict.fromkeys(("train", "val", "test"), split)
    return ImageFigures(span=1, gate_span=1, image_size=32, splits=splits, repeated_ids=0, leaks=[])


def page(classes):
    """Render a page that is as large as possible: pictures of noise, long ids, and examples for every check."""
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), "uint8")).save(noise, "PNG")

    def exhibits(count):
        name = b"folder/" * 400
        return [Exhibit(ExamplePicture("train", name, image=noise.getvalue()), "note " * 500) for _ in range(count)]

    of_span = figures(classes)
    labels = of_span.splits["train"].labels
    verdict = judge(DataGateSettings(), of_span, [f"anomaly {number} {'y' * 300}" for number in range(1000)])
    samples = {name: exhibits(8) for name in sampled_classes(labels)}
    return render(verdict, of_span, samples, dict.fromkeys(CHECKS[:9], exhibits(MAX_EXHIBITS)))


@pytest.mark.parametrize("classes", [10, 1_000, 10_000])
def test_the_page_stays_small_for_any_number_of_classes(classes):
    drawn = page(classes)
    assert len(drawn) - len(get_plotlyjs()) < 5 * 2**20
    left_out = re.search(r"the (\d+) of ([\d,]+) classes with the most and with the fewest images", drawn)
    assert (left_out is not None) == (classes > 40)
    assert ("largest and smallest of" in drawn) == (classes > 100)


def test_the_largest_and_the_smallest_classes_are_shown_in_index_order():
    counts = {"a": 5, "b": 1, "c": 9, "d": 7, "e": 3}
    assert largest_and_smallest(counts, 2) == ["b", "c"]
    assert largest_and_smallest(counts, 3) == ["b", "c", "d"]
    assert largest_and_smallest(counts, 5) == list(counts)

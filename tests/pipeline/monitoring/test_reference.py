"""The reference for distances represents all spans of a window."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from components.data.statistics.figures import TABLE
from pipeline.monitoring import reference
from pipeline.monitoring.reference import look_measures

MEANS = {"span-1": 60.0, "span-2": 180.0}
DEVIATION = 5.0


@pytest.fixture
def statistics(tmp_path):
    """Folder with a table for each of two spans, whose images differ in brightness."""
    generator = np.random.default_rng(0)
    (tmp_path / TABLE).mkdir()
    for span, mean in MEANS.items():
        colours = generator.normal(mean, DEVIATION, (1000, 3))
        rows = {
            "split": ["train"] * 998 + ["test", "train"],
            "reason": [""] * 999 + ["it does not decode"],
            "mean": [*colours],
            "mean_square": [*(colours**2 + generator.normal(400, 20, (1000, 3)))],
            "sharpness": generator.uniform(50, 500, 1000),
        }
        for row in rows["mean"], rows["mean_square"]:
            row[-2:] = [np.full(3, 1e6)] * 2  # rows that are not used
        pa.parquet.write_table(pa.table(rows), tmp_path / TABLE / f"part-{span}.parquet", row_group_size=300)
    return tmp_path


@pytest.mark.parametrize("limit", [100, 999, 200_000])
def test_usual_images_of_each_span_are_equally_far(statistics, monkeypatch, limit):
    monkeypatch.setattr(reference, "_MOST_ROWS", limit)
    looks = reference._looks(statistics)
    usual = [
        look_measures(np.full((1, 3), mean), np.full((1, 3), mean**2 + 400), np.full(1, 200.0))
        for mean in MEANS.values()
    ]
    first, second = (looks.distance(one)[0] for one in usual)
    assert first == pytest.approx(second, rel=0.2) and max(first, second) < 1
    assert looks.mean[:3] == pytest.approx([120] * 3, abs=5) and looks.colour_deviation == pytest.approx(
        [60] * 3, rel=0.05
    )

import pytest

from components.errors import StoreError
from pipeline.report.comparison import differing_values
from pipeline.report.model import Report


def test_a_file_that_is_not_a_report_is_rejected(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(StoreError, match="not a report that this version can read"):
        Report.read(tmp_path / "report.json")


def test_only_differing_values_are_returned():
    assert differing_values({"a": 1, "b": None}, {"a": 1, "b": [2], "c": "x"}) == {"b": ("null", "[2]"), "c": ("", "x")}

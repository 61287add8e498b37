import pytest

from components.errors import StoreError
from pipeline.report.comparison import differing_values
from pipeline.report.model import Report


def test_what_is_no_report_is_said(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(StoreError, match="not a report that this version can read"):
        Report.read(tmp_path / "report.json")


def test_only_what_differs():
    assert differing_values({"a": 1, "b": None}, {"a": 1, "b": [2], "c": "x"}) == {"b": ("null", "[2]"), "c": ("", "x")}

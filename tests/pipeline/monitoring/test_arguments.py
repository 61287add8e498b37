"""Tables of true classes: what their ids match, and which tables are refused."""

import numpy as np
import pandas as pd
import pytest

from components.errors import UsageError
from pipeline.monitoring.arguments import read_labels


def test_ids_and_labels_are_read_as_those_of_a_log(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(f"id,label\n5.0,3.0\n {'AB' * 32} , cat \na,\n,dog\n5,3\n")
    assert read_labels(table) == {"5": "3", "ab" * 32: "cat"}
    pd.DataFrame({"id": [5.0, np.nan], "label": [3.0, 1.0]}).to_parquet(tmp_path / "labels.parquet")
    assert read_labels(tmp_path / "labels.parquet") == {"5": "3"}


def test_two_labels_of_one_id_are_refused(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("id,label\na,cat\nb,cat\na,dog\n")
    with pytest.raises(UsageError, match=r"line 4: id 'a' has the label 'dog', but an earlier row has 'cat': keep one"):
        read_labels(table)


@pytest.mark.parametrize(
    "values", [{"id": [], "label": []}, {"id": [b"a"], "label": [b"cat"]}, {"id": ["a"], "label": [""]}]
)
def test_a_table_without_a_usable_row_is_refused(tmp_path, values):
    table = tmp_path / "labels.parquet"
    pd.DataFrame(values).to_parquet(table)
    with pytest.raises(UsageError, match="no row has both an id and a label"):
        read_labels(table)

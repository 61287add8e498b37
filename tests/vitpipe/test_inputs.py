"""Lookup of inputs that a user names."""

import pytest

from components.errors import DataRefused, UsageError
from components.model.serving_folder import RECORD, push
from tests.helpers.model_records import record
from vitpipe.inputs import find_gate_span


def test_without_a_recorded_run_the_test_data_must_be_named(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"")
    push(tmp_path / "model", tmp_path / "serving", record(1))
    with pytest.raises(
        UsageError, match="its test data is unknown: name the folder of the test images with --data"
    ) as raised:
        find_gate_span(tmp_path / "serving" / "1", tmp_path / "runs")
    assert raised.value.exit == 2
    (tmp_path / "serving" / "1" / RECORD).write_text("{")
    with pytest.raises(DataRefused):
        find_gate_span(tmp_path / "serving" / "1", tmp_path / "runs")

"""The record of measured figures is complete, and the benchmarks page shows all of it."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import record

MEASUREMENTS = [json.loads(line) for line in record.RESULTS.read_text().splitlines()]


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda measurement: measurement["topic"])
def test_measurement_has_its_date_machine_command_and_figures(measurement):
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", measurement["date"])
    assert measurement["machine"] and measurement["command"] and measurement["rows"]
    assert {len(row) for row in measurement["rows"]} == {len(measurement["columns"])}


def test_page_shows_every_topic():
    page = (record.RESULTS.parents[1] / "docs" / "benchmarks.md").read_text()
    shown = set(re.findall(r"<!-- generated: benchmark (.+?) -->", page))
    assert shown == {measurement["topic"] for measurement in MEASUREMENTS}


def test_script_adds_a_measurement_only_if_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(sys, "argv", ["benchmarks/input.py", "--fast"])
    monkeypatch.delenv("RECORD", raising=False)
    record.write("input", ["batch", "images/s"], [[64, 100]])
    assert not record.RESULTS.exists()
    monkeypatch.setenv("RECORD", "1")
    record.write("input", ["batch", "images/s"], [[64, 100]], "Small.")
    [line] = record.RESULTS.read_text().splitlines()
    written = json.loads(line)
    assert (written["topic"], written["rows"], written["note"]) == ("input", [["64", "100"]], "Small.")
    assert written["command"] == "python benchmarks/input.py --fast" and "cores" in written["machine"]


def test_word_is_added_to_the_topic(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setenv("RECORD", "cifar10")
    record.write("monitor", ["windows"], [[50]])
    assert json.loads(record.RESULTS.read_text())["topic"] == "monitor cifar10"

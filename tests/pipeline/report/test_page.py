from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from components.model.evaluator.judgement import GateSettings, judge
from components.model.evaluator.measures import measure
from pipeline.report.model import Data, Report
from pipeline.report.page import render
from pipeline.result.run_result import RunState


def report(classes):
    names = [f"class {number} {'x' * 200}" for number in range(classes)]
    labels = np.arange(2 * classes) % classes
    answers = np.random.default_rng(0).permutation(labels)
    figures = measure(labels, np.eye(classes, dtype=np.float32)[answers], names, 0.95, {})
    counts = {name: 10 + number for number, name in enumerate(names)}
    data = Data(
        span=1,
        gate_span=1,
        previous_span=None,
        labels=dict.fromkeys(("train", "val", "test"), counts),
        findings=[],
        page="/somewhere/data.html",
    )
    return Report(
        run="run",
        pipeline="many",
        started=datetime.now(UTC),
        seconds=1,
        state=RunState.DONE,
        verdict=[],
        facts={},
        settings={},
        data=data,
        samples={},
        history=[],
        judgement=judge(GateSettings(), figures),
        override=None,
        calibration=[],
        mistakes=[],
        serving=[],
        nodes=[],
        lineage_of="",
        lineage="",
    )


@pytest.mark.parametrize("classes", [10, 200, 2_000])
def test_a_page_with_many_classes_stays_small(classes):
    drawn = render(report(classes), Path("/somewhere/else"))
    assert len(drawn) - len(get_plotlyjs()) < 4 * 2**20
    assert ("classes with the lowest recall." in drawn) == (classes > 100)
    assert ("largest and smallest" in drawn) == (classes > 100)

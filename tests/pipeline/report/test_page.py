import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from components.model.evaluator.judgement import GateSettings, judge
from components.model.evaluator.measures import Sums
from pipeline.report.model import Data, Report
from pipeline.report.page import render
from pipeline.result.figures import Epoch
from pipeline.result.run_result import RunState
from trainer.trials import Trial


def report(classes):
    names = [f"class {number} {'x' * 200}" for number in range(classes)]
    labels = np.arange(2 * classes) % classes
    answers = np.random.default_rng(0).permutation(labels)
    figures = Sums.of(labels, np.eye(classes, dtype=np.float32)[answers]).figures(names, 0.95, {})
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


def test_a_training_on_val_has_no_curve_of_val():
    figures = {"loss": 1.0, "accuracy": 0.5, "learning_rate": 1e-3, "images_per_second": 900.0, "seconds": 1.5}
    measured = {"val_loss": 1.2, "val_accuracy": 0.4}
    one, other = (
        report(2).model_copy(update={"history": [Epoch(epoch=1, **figures, **more)]}) for more in (measured, {})
    )
    with_val, without_val = (render(each, Path("/somewhere/else")) for each in (one, other))
    assert "the best accuracy on val, 40" in with_val and '"name":"val"' in with_val
    assert "the model of the last epoch was exported" in without_val and '"name":"val"' not in without_val


def test_trials_of_a_tuning_are_shown_the_best_first():
    space = {
        "model": {},
        "augment": {"flip": {"log": False}},
        "training": {"learning_rate": {"log": True}, "seed": None},
    }
    known = {"epoch": 2, "epochs": 3, "seconds": 1}
    values = [{"augment.flip": True, "training.learning_rate": rate} for rate in (0.01, 0.02, 0.03, 0.04)]
    trials = [
        Trial(number=1, state="pruned", values=values[0], accuracy=0.9, **known),
        Trial(number=2, state="complete", values=values[1], accuracy=0.5, **known),
        Trial(number=3, state="complete", values=values[2], accuracy=0.7, **known),
        Trial(number=4, state="failed", values=values[3], accuracy=None, **known | {"epoch": None}, error="too large"),
    ]
    drawn = render(report(3).model_copy(update={"trials": trials, "settings": {"tune": {"space": space}}}), Path("/a"))
    assert "Trial 3 is the best." in drawn and "too large" in drawn
    assert "Accuracy on val by augment.flip" in drawn and "Accuracy on val by training.seed" not in drawn
    numbers = re.findall(r'<tr><td class="n">(\d)</td><td>(?:complete|pruned|failed)', drawn)
    assert numbers == ["3", "2", "1", "4"]

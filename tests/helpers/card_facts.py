"""Facts of a run, from which a model card is written."""

import numpy as np

from components.data.gate.bounds import Bound, Finding
from components.data.gate.checks import DataVerdict
from components.data.statistics.figures import ImageFigures, SplitFigures
from components.model.evaluator.judgement import Check, GateSettings, judge
from components.model.evaluator.measures import Sums
from components.model.model_card import CardFacts
from components.model.serving_folder import ModelId

SETTINGS = {
    "name": "digits",
    "data": {"dir": "/home/someone/photos", "span": 3, "gate_span": 1},
    "model": {"image_size": 32, "resize": "crop"},
    "training": {"epochs": 30},
}


def split(counts):
    return SplitFigures(
        images=sum(counts.values()),
        bytes=1,
        undecodable={},
        outside_labels=0,
        labels=counts,
        formats={},
        sizes={},
        different_sizes=1,
        smallest_side=8,
        mean=[0.0],
        spread=[0.0],
        brightness=[],
        sharpness=[],
        sides=[],
        duplicates=0,
    )


def card_facts(names=("cat", "dog"), settings=SETTINGS, text="ok", leaks=(), **changes):
    """Return the facts of a run.

    Args:
        names: Names of the classes.
        settings: Resolved settings of the run.
        text: Text of a finding of the data gate.
        leaks: Leaks between splits.
        **changes: Values of other facts.
    """
    names = list(names)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    answers = np.eye(len(names), dtype=np.float32)[[0, 0, 0, 1, 1, 1, 1, 1]]
    figures = Sums.of(labels, answers).figures(names, 0.95, {"brightness low": (3, 4)})
    finding = Finding(
        check="conflicts",
        value=1,
        bound=Bound(warn=0, stop=None),
        sense="at most",
        text=text,
        examples=("private.png",),
    )
    verdict = DataVerdict(
        figures=ImageFigures(
            span=3,
            gate_span=1,
            image_size=32,
            splits={
                "train": split(dict.fromkeys(names, 7)),
                "val": split(dict.fromkeys(names, 2)),
                "test": split(dict.fromkeys(names, 4)),
            },
            repeated_ids=0,
            leaks=list(leaks),
        ),
        previous_span=None,
        findings=[finding],
        left_out=0,
        accepted={},
    )
    values = {
        "run_id": "20260101-000000-abcd",
        "code_version": "0123456789ab",
        "settings": settings,
        "settings_digest": "5e77",
        "model": ModelId(uri="/r/root/Trainer/model/5", created_ms=1),
        "span": 3,
        "data_digest": "da7a",
        "gate_data_digest": "9a7e",
        "judgement": judge(GateSettings(accuracy=0.8, class_accuracy=0.5, calibration=1), figures),
        "serving": [Check(name="milliseconds", value=4.0, bound=100.0, sense="at most")],
        "data": verdict,
    }
    return CardFacts(**(values | changes))

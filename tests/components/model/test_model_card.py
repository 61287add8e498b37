"""The model card states what the run recorded, and no name can break out of its Markdown or YAML."""

import dataclasses

import numpy as np
import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from components.data.gate.bounds import Bound, Finding
from components.data.gate.checks import DataVerdict
from components.data.statistics.figures import ImageFigures, SplitFigures
from components.model.evaluator.judgement import Check, GateSettings, judge
from components.model.evaluator.measures import Sums
from components.model.model_card import CardFacts, model_card
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


def facts(names=("cat", "dog"), settings=SETTINGS, text="ok", **changes):
    names = list(names)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    answers = np.eye(len(names), dtype=np.float32)[[0, 0, 0, 1, 1, 1, 1, 1]]
    figures = Sums.of(labels, answers).figures(names, 0.95, {"brightness low": (3, 4)})
    finding = Finding(check="conflicts", value=1, bound=Bound(warn=0, stop=None), sense="at most", text=text)
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
            leaks=[],
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


def tables(text):
    """Return the rows of each table as a reader sees them: lists of the text in the cells, headers included."""
    found = []
    in_cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            in_cell = True
        elif token.type in ("th_close", "td_close"):
            in_cell = False
        elif token.type == "inline" and in_cell:
            found[-1][-1].append("".join(child.content for child in token.children))
    return found


def markup(text):
    """Return the types of everything in a document but text."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    kinds = [token.type for token in tokens]
    return kinds + [child.type for token in tokens for child in token.children or [] if child.type != "text"]


def test_hugging_face_reads_the_metadata():
    card = ModelCard(model_card(facts(settings=SETTINGS | {"license": "apache-2.0"})))
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "image-classification"
    results = {one.metric_type: one for one in card.data.eval_results}
    assert results["accuracy"].metric_value == 0.875 and results["accuracy"].dataset_split == "test"
    assert results["accuracy"].dataset_name == "photos, span 1"


def test_no_licence_is_invented():
    card = ModelCard(model_card(facts()))
    assert card.data.license is None and "no licence" in card.text


def test_figures_counts_and_checks_are_those_of_the_run():
    text = ModelCard(model_card(facts())).text
    figures, classes, data, gates, lineage = tables(text)
    assert ["accuracy", "0.8750", "0.4735 to 0.9968"] in figures
    assert ["accuracy of the worst class, cat", "0.7500", "0.1941 to 0.9937"] in figures
    assert ["accuracy, third of the images with brightness low", "0.7500", "0.1941 to 0.9937"] in figures
    assert classes[1:] == [
        ["0", "cat", "7", "2", "4", "0.7500", "0.1941 to 0.9937"],
        ["1", "dog", "7", "2", "4", "1.0000", "0.3976 to 1.0000"],
    ]
    assert data[1:] == [["trained on", "3", "da7a"], ["tested on", "1", "9a7e"]]
    assert ["accuracy", "", "0.8750", "0.4735 to 0.9968", "at least 0.8000", "passed"] in gates
    assert ["milliseconds", "", "4.0000", "", "at most 100.0000", "passed"] in gates
    assert ["sha256 of the settings", "5e77"] in lineage and ["model in ML Metadata", "Trainer/model/5"] in lineage
    assert "32 x 32" in text and "epochs: 30" in text
    assert "/home/someone" not in text


def test_an_overruled_gate_is_stated_with_its_reason():
    text = model_card(facts(override="seen by hand", data=None))
    assert "**A person overruled the model gate**, with this reason: seen by hand" in text
    assert tables(ModelCard(text).text)[1][1][2:5] == ["", "", "4"]  # without the verdict only test counts are known


@pytest.fixture(scope="module")
def plain():
    """The card of a run without unusual names."""
    card = ModelCard(model_card(facts(override="x")))
    return card.data.to_dict(), markup(card.text)


@settings(max_examples=25)
@given(name=st.text(min_size=1, max_size=30), text=st.text(min_size=1, max_size=30))
@example(name="a|b", text="x\n\n# Title")
@example(name="`a`", text="</td><script>alert(1)</script>")
@example(name="---\nlicense: mit\n---", text="![x](http://x/y) https://example.com www.example.com a@b.c")
@example(name="```", text="&lt; \u202e\x1b[2J")
def test_no_text_from_outside_becomes_markup_or_metadata(plain, name, text):
    hostile = facts([name, f"{name}2"], text=text, override=text)
    hostile = dataclasses.replace(hostile, settings=SETTINGS | {"finetune": {"source": f"{text}\n```\n{name}"}})
    text = model_card(hostile)
    card = ModelCard(text)
    assert (card.data.to_dict(), markup(card.text)) == plain
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["a|b", "*x*", "<b>", r"a\b", "[a](b)", "&amp;", "$x$", "ä 1.5 - 2"])
def test_a_name_reads_as_it_is(name):
    assert tables(ModelCard(model_card(facts([name, "other"]))).text)[1][1][1] == name

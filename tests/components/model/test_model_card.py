"""The model card states what the run recorded, and no name can break out of its Markdown or YAML."""

import dataclasses

import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from components.data.statistics.figures import Leak
from components.model.model_card import model_card
from tests.helpers.card_facts import SETTINGS, card_facts

FINETUNE = {"source": "/home/someone/vit.keras", "head_epochs": 2, "epochs": 3}


def tables(text):
    """Return the rows of each table as a reader sees them: lists of the text in the cells, headers included."""
    rows_of_tables = []
    in_cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            rows_of_tables.append([])
        elif token.type == "tr_open":
            rows_of_tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            in_cell = True
        elif token.type in ("th_close", "td_close"):
            in_cell = False
        elif token.type == "inline" and in_cell:
            rows_of_tables[-1][-1].append("".join(child.content for child in token.children))
    return rows_of_tables


def markup(text):
    """Return the types of everything in a document but text."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    kinds = [token.type for token in tokens]
    return kinds + [child.type for token in tokens for child in token.children or [] if child.type != "text"]


def test_hugging_face_reads_the_metadata():
    card = ModelCard(model_card(card_facts(settings=SETTINGS | {"license": "apache-2.0"})))
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "image-classification"
    results = {one.metric_type: one for one in card.data.eval_results}
    assert results["accuracy"].metric_value == 0.875 and results["accuracy"].dataset_split == "test"
    assert results["accuracy"].dataset_name == "photos, span 1"


def test_no_licence_is_invented():
    card = ModelCard(model_card(card_facts()))
    assert card.data.license is None and "no licence" in card.text


def test_figures_counts_and_checks_are_those_of_the_run():
    text = ModelCard(model_card(card_facts())).text
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
    text = model_card(card_facts(override="seen by hand", data=None))
    assert "**A person overruled the model gate**, with this reason: seen by hand" in text
    assert tables(ModelCard(text).text)[1][1][2:5] == ["", "", "4"]  # without the verdict only test counts are known


def test_the_run_that_pushed_is_not_said_to_have_trained():
    card = ModelCard(model_card(card_facts())).text
    assert "pushed by\nrun `20260101-000000-abcd`" in card and "trained by" not in card
    assert ["run that pushed", "20260101-000000-abcd"] in tables(card)[-1]
    assert ["code version of that run", "0123456789ab"] in tables(card)[-1]


def test_all_spans_of_a_window_are_named():
    data = tables(ModelCard(model_card(card_facts(earlier_spans=(2, 1)))).text)[2]
    assert data[1] == ["trained on", "3, 2, 1", "da7a"]


def test_settings_that_had_no_effect_are_left_out_or_explained():
    training = {"epochs": 30, "learning_rate": 7e-4, "batch_size": 64}
    settings = SETTINGS | {"training": training, "augment": {"mixup": 0.5}, "finetune": FINETUNE}
    text = model_card(card_facts(settings=settings)).partition("## Settings of the run")[2]
    assert "batch_size: 64" in text and "epochs: 30" not in text and "0.0007" not in text
    assert "head_epochs: 2" in text and "Nothing was trained" not in text
    accepted = settings | {"finetune": FINETUNE | {"head_epochs": 0, "epochs": 0}}
    text = model_card(card_facts(settings=accepted))
    assert "The weights are those of the backbone. Nothing was trained." in text
    assert "batch_size" not in text and "mixup" not in text

    text = model_card(card_facts())
    assert "epochs: 30" in text and "A tuning replaced" not in text and "an earlier model" not in text
    tuned = SETTINGS | {"training": training | {"tuned": True}}
    assert "A tuning replaced some of these values." in model_card(card_facts(settings=tuned))
    assert "Training started from an earlier model." in model_card(card_facts(warm_start=True))


def test_leaks_into_the_test_images_are_stated():
    leaks = [
        Leak(source="train", target="test", exact=5, near=7),
        Leak(source="val", target="test", exact=11, near=0),
        Leak(source="train", target="val", exact=13, near=0),
    ]
    sentence = "of these images also appear in the"
    text = model_card(card_facts(leaks=leaks))
    assert f"5 {sentence} train split that the model was trained on, and 7 nearly equal" in text
    assert text.count(sentence) == 1 and "not\nused for training" not in text
    both = SETTINGS | {"training": {"use_val": True}}
    assert f"11 {sentence} val split" in model_card(card_facts(settings=both, leaks=leaks))
    assert sentence not in model_card(card_facts())


def test_neither_folders_nor_names_of_images_are_printed():
    text = model_card(card_facts(settings=SETTINGS | {"finetune": FINETUNE}))
    assert "vit.keras" in text and "/home/someone" not in text
    assert "conflicts" in text and "private" not in text


@pytest.fixture(scope="module")
def plain():
    """The card of a run without unusual names."""
    card = ModelCard(model_card(card_facts(override="x")))
    return card.data.to_dict(), markup(card.text)


@settings(max_examples=25)
@given(name=st.text(min_size=1, max_size=30), text=st.text(min_size=1, max_size=30))
@example(name="a|b", text="x\n\n# Title")
@example(name="`a`", text="</td><script>alert(1)</script>")
@example(name="---\nlicense: mit\n---", text="![x](http://x/y) https://example.com www.example.com a@b.c")
@example(name="```", text="&lt; \u202e\x1b[2J")
@example(name="0", text="\xa0")
def test_no_text_from_outside_becomes_markup_or_metadata(plain, name, text):
    hostile = card_facts([name, f"{name}2"], text=text, override=text)
    hostile = dataclasses.replace(
        hostile, settings=SETTINGS | {"finetune": FINETUNE | {"source": f"{text}\n```\n{name}"}}
    )
    text = model_card(hostile)
    card = ModelCard(text)
    assert (card.data.to_dict(), markup(card.text)) == plain
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["a|b", "*x*", "<b>", r"a\b", "[a](b)", "&amp;", "$x$", "ä 1.5 - 2"])
def test_a_name_reads_as_it_is(name):
    assert tables(ModelCard(model_card(card_facts([name, "other"]))).text)[1][1][1] == name

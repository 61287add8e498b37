"""Tests of the page on which a person decides about suspects."""

import re

import pytest

from components.data.ingest import tfrecord
from components.data.labels.page import render
from components.data.labels.suspects import SUSPECTS_SCHEMA, LabelFigures
from tests.helpers.spans import encoded, picture


@pytest.fixture
def page(tmp_path):
    """Function that renders the page of span 2 with a suspect for each shard, id and span."""

    def page(*suspects):
        rows = []
        for number, (shard, id, span) in enumerate(suspects):
            record = tfrecord.frame(tfrecord.example(encoded(picture(number)), 0, id))
            (tmp_path / shard).write_bytes(record)
            rows.append(
                {"split": "train", "id": id, "label": "cat", "suggested": "dog", "score": 0.1, "reason": "prediction"}
                | {"shard": shard, "offset": 0, "span": span}
            )
        table = SUSPECTS_SCHEMA.empty_table().from_pylist(rows, SUSPECTS_SCHEMA).to_pandas()
        figures = LabelFigures(folds=3, epochs=5, images=90, too_small=("fox",))
        return render(2, figures, table, {"train": tmp_path})

    return page


def test_in_a_window_only_images_of_the_newest_span_can_be_decided_about(page):
    html = page(("part-span-2-0.tfrecord", b"span-2/a.png", 2), ("part-span-1-0.tfrecord", b"span-1/b.png", 1))
    assert re.findall('data-id="([^"]*)" data-given="([^"]*)"', html) == [("a.png", "cat"), ("", "cat")]
    assert html.count("<select ") == 1 and html.count("From span 1: only images of span 2") == 1


def test_without_a_window_an_id_is_that_of_the_source(page):
    html = page(("part-00000-of-00001.tfrecord", b"span-2/a.png", 2), ("part-0.tfrecord", b"test of the gate.png", 1))
    assert re.findall('data-id="([^"]*)"', html) == ["span-2/a.png", ""] and html.count("<select ") == 1


def test_classes_that_the_estimate_leaves_out_are_named(page):
    assert re.search("leaves out 1 class with .*: fox", page(("part-0.tfrecord", b"a.png", 2)))

"""Test of the nodes of the real graph that handle data, from the ingestion to the verdict."""

import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from ml_metadata import MetadataStore
from tfx.orchestration.portable import runtime_parameter_utils

from components.data.ingest import tfrecord
from components.errors import Exit
from pipeline.graph import compile_graph
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.node import launch
from pipeline.outcome import NodeState
from pipeline.result.run_result import RunResult
from pipeline.result.verdict import verdict
from pipeline.settings import load
from tests.helpers.spans import bomb, encoded, picture, write_span

_runs = itertools.count()


def records(split, seeds, change=lambda pixels: pixels, label=lambda seed: seed % 3):
    return [
        tfrecord.example(encoded(change(picture(seed))), label(seed), f"{split}/{seed}.png".encode()) for seed in seeds
    ]


def span_of(first, rows=60, **options):
    """Return the records of a span. Other values of `first` give other pictures."""
    return {
        "train": records("train", range(first, first + rows), **options),
        "val": records("val", range(first + 300, first + 312)),
        "test": records("test", range(first + 400, first + 412)),
    }


class Half:
    """Runner of the nodes up to the condition of Transform, on a data folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.address = Address(file=folder / "runs" / "sample" / "metadata.db")
        self.store = self.address.connection_config()

    def run(self, span, accepted=None, flags=()):
        settings = load(
            "sample",
            [
                f"data.dir={self.folder / 'data'}",
                f"runs={self.folder / 'runs'}",
                "data_gate.near_leaks.stop=0.05",
                *flags,
            ],
            environment={},
        )
        ir = compile_graph(settings, span, accepted=accepted or {})
        runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": (run_id := f"run-{next(_runs)}")})
        names = [node.pipeline_node.node_info.id for node in ir.nodes]
        outcomes = []
        for name in [name for name in names if name not in ("Baseline", "Trainer", "Evaluator", "Pusher")]:
            outcomes.append(launch(ir, name, self.store))
            if outcomes[-1].state is NodeState.FAILED:
                break
        self.states = {outcome.node: outcome.state for outcome in outcomes}
        with reader(self.address) as store:
            return verdict(RunResult(store.run(run_id), outcomes))

    def newest(self, type_name):
        artifacts = MetadataStore(self.store).get_artifacts_by_type(type_name)
        return max(artifacts, key=lambda artifact: artifact.id)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Data folder: span 1 is good, 2 is similar, 3 has many invalid images, 10 is much darker."""
    folder = tmp_path_factory.mktemp("half")
    data = folder / "data"
    write_span(data, 1, span_of(0))
    write_span(data, 2, span_of(1000))
    bad = span_of(2000)
    test_image = tfrecord.parse(span_of(0)["test"][0]).image
    bad["train"] += [
        tfrecord.example(image, 0, id)
        for image, id in [
            (b"", b"zero.png"),
            (b"<html><script>alert(1)</script>", b"<b>page</b>.jpg"),
            (bomb(), b"bomb.png"),
            (encoded(np.zeros((1, 1, 3), "uint8")), b"dot.png"),
            (test_image, b"stolen.png"),
            (encoded(np.full((32, 32, 3), 90, "uint8"), "JPEG"), b"flat.jpg"),
        ]
    ]
    write_span(data, 3, bad)
    write_span(data, 4, span_of(3000, label=lambda seed: 1))
    write_span(data, 10, span_of(4000, change=lambda pixels: (pixels * 0.3).astype("uint8")))
    return Half(folder)


def test_a_good_span_reaches_transform(half):
    result = half.run(1)
    assert result.exit is Exit.OK, result.lines
    assert half.states["Transform"] in (NodeState.COMPLETE, NodeState.CACHED)  # another test may have run this span
    verdicts = half.newest("DataVerdict")
    assert (verdicts.properties["passed"].int_value, verdicts.properties["span"].int_value) == (1, 1)


@pytest.mark.slow
def test_a_second_good_span_is_compared_with_the_first_and_uses_the_same_test_set(half):
    half.run(1)
    result = half.run(2)
    assert result.exit is Exit.OK, result.lines
    assert half.states["TestExampleGen"] is NodeState.CACHED
    page = Path(half.newest("DataVerdict").uri, "data.html").read_text()
    assert "Compared with span 1" in page
    # The results for the older span are still in the cache.
    half.run(1)
    assert {half.states[name] for name in ("ImportExampleGen", "StatisticsGen", "ImageStatistics", "Transform")} == {
        NodeState.CACHED
    }


def test_invalid_images_stop_the_run_before_transform_and_are_named(half):
    for _ in range(2):
        result = half.run(3)
        assert result.exit is Exit.DATA_REFUSED and half.states["Transform"] is NodeState.SKIPPED
    assert half.states["DataGate"] is NodeState.CACHED
    text = "\n".join(result.lines)
    assert "undecodable: 2 in train: not a PNG or JPEG image; 1 in train: a PNG of more than 16,777,216 pixels" in text
    assert "'zero.png' (not a PNG or JPEG image)" in text
    assert "image_side: the smallest image has a side of 1 pixels, in train" in text and "'dot.png' (1x1)" in text
    assert "exact_leaks: images appear in two splits: 1 of test in train" in text and "test/400.png" in text
    assert "data.html" in result.lines[-2] and "report.html" in result.lines[-1]


def test_the_page_shows_the_affected_examples_and_escapes_their_names(half):
    half.run(3)
    page = Path(half.newest("DataVerdict").uri, "data.html").read_text()
    for id in "zero.png", "bomb.png", "dot.png", "stolen.png", "flat.jpg", "&lt;b&gt;page&lt;/b&gt;.jpg":
        assert id in page
    assert "2 in train: every pixel has the same colour" in page
    assert "<b>page" not in page and "alert(1)" not in page
    assert "refused, nothing was trained" in page
    assert page.count("data:image/png;base64,") > 24  # samples of each class, and the leaking pair
    assert "http" not in page.partition("</script>")[2]  # Plotly's own code names a few addresses
    assert len(page) < 8 * 2**20


@pytest.mark.slow
def test_a_span_of_only_one_class_is_refused(half):
    result = half.run(4)
    assert result.exit is Exit.DATA_REFUSED
    assert any("missing_classes: no image of 'cat' in train, 'fox' in train" in line for line in result.lines)


@pytest.mark.slow
def test_drift_is_refused_unless_a_person_accepts_it_with_a_reason(half):
    half.run(1)
    result = half.run(10)
    assert result.exit is Exit.DATA_REFUSED
    stopping = [line.split(":")[0].strip() for line in result.lines if line.startswith("  ")]
    assert {"drift_brightness", "drift_colour"} <= set(stopping)

    reason = "the new camera is darker"
    accepted = half.run(10, accepted=dict.fromkeys(stopping, reason))
    assert accepted.exit is Exit.OK, accepted.lines
    assert half.states["Transform"] is NodeState.COMPLETE
    assert any(line.startswith("accepted: drift_brightness") and reason in line for line in accepted.lines)
    kept = json.loads(half.newest("DataVerdict").custom_properties["findings"].string_value)
    assert {finding["accepted"] for finding in kept if finding["check"] in stopping} == {reason}


@pytest.mark.slow
def test_equal_images_with_different_labels_are_refused_and_both_are_named(half):
    contradicting = span_of(7000)
    first, second = (tfrecord.parse(record) for record in contradicting["train"][:2])
    contradicting["train"].append(tfrecord.example(first.image, second.label, b"moved/first.png"))
    write_span(half.folder / "data", 7, contradicting)
    result = half.run(7)
    assert result.exit is Exit.DATA_REFUSED
    [line] = [line for line in result.lines if "conflicting_labels" in line]
    names = ("cat", "dog", "fox")
    assert "2 images also appear with another label (2 equal, 0 nearly equal)" in line
    assert f"'train/7000.png' (labelled {names[first.label]}; 'moved/first.png' in train" in line
    assert f"is labelled {names[second.label]})" in line
    page = Path(half.newest("DataVerdict").uri, "data.html").read_text()
    assert "moved/first.png" in page.partition("<h2>conflicting_labels</h2>")[2]
    accepted = half.run(7, accepted={"conflicting_labels": "both are right"})
    assert accepted.exit is Exit.OK, accepted.lines


@pytest.mark.slow
def test_nearly_equal_images_with_different_labels_are_refused_and_both_are_named(half):
    contradicting = span_of(8000)
    darker = (picture(8000) * 0.8).astype("uint8")
    contradicting["train"].append(tfrecord.example(encoded(darker), (8000 + 1) % 3, b"moved/darker.png"))
    write_span(half.folder / "data", 8, contradicting)
    result = half.run(8)
    assert result.exit is Exit.DATA_REFUSED and half.states["Transform"] is NodeState.SKIPPED
    [line] = [line for line in result.lines if "conflicting_labels" in line]
    old, new = (("cat", "dog", "fox")[number % 3] for number in (8000, 8001))
    assert "(0 equal, 2 nearly equal)" in line
    assert f"'train/8000.png' (labelled {old}; 'moved/darker.png' in train" in line
    assert f"is labelled {new})" in line


@pytest.mark.slow
def test_images_that_differ_only_where_they_are_transparent_are_duplicates_of_one_colour(half):
    """The model gets the background in place of these pixels, so the pictures are equal for it."""

    def transparent(pixels):
        return np.dstack([pixels, np.zeros_like(pixels[..., :1])])

    write_span(
        half.folder / "data",
        9,
        {
            split: records(split, range(first, first + rows), transparent, label=lambda seed: 0)
            for split, first, rows in (("train", 9000, 60), ("val", 9300, 12), ("test", 9400, 12))
        },
    )
    result = half.run(9)
    assert result.exit is Exit.DATA_REFUSED
    [duplicates] = [line for line in result.lines if line.startswith("  duplicates: ")]
    [one_colour] = [line for line in result.lines if line.startswith("warning: one_colour: ")]
    assert "59 images in train repeat an earlier image" in duplicates
    assert "60 in train, 12 in val: every pixel has the same colour" in one_colour


@pytest.mark.slow
def test_leaks_may_be_left_out_of_training(half):
    leaking = span_of(5000)
    stolen = [tfrecord.parse(record).image for record in span_of(0)["test"][:2]]
    leaking["train"] += [tfrecord.example(image, 0, b"stolen-%d.png" % n) for n, image in enumerate(stolen)]
    write_span(half.folder / "data", 5, leaking)
    assert half.run(5).exit is Exit.DATA_REFUSED
    result = half.run(5, flags=["data_gate.leave_out_leaks=true"])
    assert result.exit is Exit.OK, result.lines
    left_out = json.loads(Path(half.newest("DataVerdict").uri, "leave_out.json").read_text())
    assert left_out == ["stolen-0.png", "stolen-1.png"]


@pytest.mark.slow
def test_the_checks_do_not_count_left_out_leaks(half):
    """Every fox of train also appears in test."""
    foxes = [tfrecord.parse(record).image for record in span_of(0)["test"]][:4]
    leaking = span_of(6000, rows=20, label=lambda seed: seed % 2)
    leaking["train"] += [tfrecord.example(image, 2, b"caf\xe9-%d.png" % n) for n, image in enumerate(foxes)]
    write_span(half.folder / "data", 6, leaking)
    result = half.run(6, flags=["data_gate.leave_out_leaks=true"])
    assert result.exit is Exit.DATA_REFUSED
    assert any("missing_classes: no image of 'fox' in train" in line for line in result.lines)
    listed = json.loads(Path(half.newest("DataVerdict").uri, "leave_out.json").read_text())
    assert {id.encode("utf-8", "surrogateescape") for id in listed} == {b"caf\xe9-%d.png" % n for n in range(4)}


def test_the_decompression_bomb_is_small():
    """The bomb of the tests above is a valid PNG of 900 million pixels in a few hundred kB."""
    data = bomb()
    assert len(data) < 2**20 and zlib.crc32(data[12:29]) == int.from_bytes(data[29:33], "big")

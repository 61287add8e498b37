"""Windows of several spans, made by the ingestion from real spans and a real store."""

import itertools
import json
import os
from pathlib import Path

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler.compiler import Compiler
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import runtime_parameter_utils

from components.data.example_gen import SpanExampleGen
from components.data.ingest import prepare, tfrecord
from components.data.span_properties import DATA_PROPERTIES, EARLIER_SPANS, data_digest
from pipeline.drawing.lineage import describe
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.node import launch
from pipeline.outcome import NodeState
from tests.helpers.spans import encoded, picture, write_span
from vitpipe.cli.artifacts import find_artifact

_runs = itertools.count()


def example(seed, label=None, id=None, kind="PNG"):
    """Return an example whose pixels depend on the seed."""
    id = id or f"{seed}.png"
    return tfrecord.example(encoded(picture(seed), kind), seed % 3 if label is None else label, id.encode())


def span(data, number, train, val=()):
    write_span(data, number, {"train": list(train), "val": list(val) or [example(900)], "test": [example(901)]})


@pytest.fixture
def ingest(tmp_path):
    """Function that ingests a window, and returns the state, the error and the Examples artifact."""

    def run(newest, window, most=None):
        node = SpanExampleGen(str(tmp_path / "data"), newest, ["train", "val"], window, most)
        pipeline = Pipeline(
            "ingestion",
            str(tmp_path / "root"),
            components=[node],
            enable_cache=True,
            beam_pipeline_args=["--runner=FnApiRunner"],
        )
        ir = Compiler().compile(pipeline)
        run_id = f"run-{next(_runs)}"
        runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": run_id})
        outcome = launch(ir, "SpanExampleGen", Address(file=tmp_path / "metadata.db").connection_config())
        with reader(Address(file=tmp_path / "metadata.db")) as store:
            found = store.artifacts("Examples")
        return outcome, found[0] if found else None

    return run


def read(examples, split="train"):
    """Return the labels by id in the examples."""
    folder = Path(examples.uri, f"Split-{split}")
    found = [*tfrecord.read_split(folder)]
    assert all(path.name.startswith("part-") for path in folder.iterdir())
    assert len({row.id for row in found}) == len(found)
    return {row.id.decode(): row.label for row in found}


def test_of_an_image_in_several_spans_that_of_the_newest_counts(ingest, tmp_path):
    data = tmp_path / "data"
    span(data, 1, [example(1), example(2), example(3)], [example(50)])
    span(data, 2, [example(2, label=0, id="again.png"), example(4)], [example(51), example(51, id="twice.png")])
    span(data, 4, [example(3, label=1), example(4), example(5)], [example(50)])
    outcome, examples = ingest(newest=4, window=3)
    assert outcome.state is NodeState.COMPLETE
    assert read(examples) == {
        "span-4/3.png": 1,
        "span-4/4.png": 1,
        "span-4/5.png": 2,
        "span-2/again.png": 0,
        "span-1/1.png": 1,
    }
    assert {*read(examples, "val")} == {"span-4/50.png", "span-2/51.png", "span-2/twice.png"}
    assert {path.name for path in tmp_path.glob("root/SpanExampleGen/examples/*/*")} == {"Split-train", "Split-val"}


@pytest.mark.parametrize("is_refused", [False, True])
def test_an_image_that_a_decision_dropped_is_not_taken_from_an_earlier_span(ingest, tmp_path, is_refused):
    for seed in range(180):
        path = tmp_path / f"{'photos' if seed < 90 else 'more'}/{seed % 3}/{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed), "PNG"))
    data, decisions = tmp_path / "data", tmp_path / "decisions.csv"
    prepare("images", data, str(tmp_path / "photos"))
    _, before = ingest(newest=1, window=2)
    dropped = sorted(read(before))[0]
    decisions.write_text(f"id,verdict\n{dropped.removeprefix('span-1/')},drop\n")
    prepare("images", data, str(tmp_path / "photos"), decisions=decisions)
    if is_refused:  # the decisions of a refused span still apply
        record_verdicts(tmp_path, (2, 0, data, "ingestion"))
        prepare("images", data, str(tmp_path / "more"))
    _, examples = ingest(newest=3 if is_refused else 2, window=2)
    of_photos = {id.partition("/")[2] for id in read(examples) if not id.startswith("span-3")}
    assert of_photos == {id.partition("/")[2] for id in {*read(before)} - {dropped}}


def test_images_that_were_encoded_again_without_loss_are_equal(ingest, tmp_path):
    span(tmp_path / "data", 1, [example(1), example(2)])
    span(tmp_path / "data", 2, [tfrecord.example(encoded(picture(1), compress_level=0), 0, b"new.png")])
    _, examples = ingest(newest=2, window=2)
    assert {*read(examples)} == {"span-2/new.png", "span-1/2.png"}


def test_a_limit_counts_different_images(ingest, tmp_path):
    repeated = [example(1, id=f"copy-{number}.png") for number in range(6)]
    span(tmp_path / "data", 1, [*repeated, example(2), example(3), example(4)])
    span(tmp_path / "data", 2, [example(5)])

    def different(most):
        _, examples = ingest(newest=2, window=2, most=most)
        return {"copy" if "copy" in id else id for id in read(examples) if id.startswith("span-1")}

    assert [len(different(most)) for most in (2, 3, 4)] == [2, 3, 4]


def test_times_of_files_do_not_change_the_cache(ingest, tmp_path):
    span(tmp_path / "data", 1, [example(1)])
    span(tmp_path / "data", 2, [example(2)])
    ingest(newest=2, window=2)
    for shard in tmp_path.glob("data/span-*/*/*.tfrecord"):
        os.utime(shard, (1, 1))
    assert ingest(newest=2, window=2)[0].state is NodeState.CACHED


def test_a_limit_takes_the_same_random_images_of_each_earlier_span(ingest, tmp_path):
    data = tmp_path / "data"
    span(data, 1, [example(seed) for seed in range(20)], [example(60)])
    span(data, 2, [example(seed) for seed in range(20, 40)], [example(61)])
    span(data, 3, [example(seed) for seed in range(40, 60)], [example(62)])
    _, two = ingest(newest=2, window=2, most=5)
    _, three = ingest(newest=3, window=3, most=5)

    def chosen(examples, number):
        return {id for id in read(examples) if id.startswith(f"span-{number}/")}

    assert len(chosen(two, 1)) == len(chosen(three, 2)) == 5
    assert chosen(two, 1) == chosen(three, 1)
    assert len(read(three)) == 30
    assert {*read(three, "val")} == {"span-3/62.png", "span-2/61.png", "span-1/60.png"}
    numbers = sorted(int(id.split("/")[1].removesuffix(".png")) for id in chosen(two, 1))
    assert numbers != list(range(5))


def record_verdicts(folder, *verdicts):
    """Record verdicts of data gates: span, whether it passed, data folder, pipeline."""
    store = MetadataStore(Address(file=folder / "metadata.db").connection_config())
    kind = store.put_artifact_type(
        mlmd.ArtifactType(name="DataVerdict", properties={"span": mlmd.INT, "passed": mlmd.INT})
    )
    type_id = store.put_context_type(mlmd.ContextType(name="pipeline"))
    for number, passed, data, pipeline in verdicts:
        verdict = mlmd.Artifact(type_id=kind, state=mlmd.Artifact.LIVE)
        verdict.properties["span"].int_value = number
        verdict.properties["passed"].int_value = passed
        verdict.custom_properties["data_folder"].string_value = str(data)
        [id] = store.put_artifacts([verdict])
        context = store.get_context_by_type_and_name("pipeline", pipeline)
        made_in = context.id if context else store.put_contexts([mlmd.Context(type_id=type_id, name=pipeline)])[0]
        store.put_attributions_and_associations([mlmd.Attribution(artifact_id=id, context_id=made_in)], [])


def test_a_refused_span_does_not_belong_to_a_window(ingest, tmp_path):
    data = tmp_path / "data"
    for number in (1, 2, 3, 4):
        span(data, number, [example(10 * number)])
    # The last two are verdicts on another data folder, and of another pipeline.
    verdicts = (2, 0, data), (3, 0, data), (3, 1, data), (3, 0, tmp_path / "other"), (1, 0, data)
    record_verdicts(tmp_path, *((*verdict, "other" if verdict[0] == 1 else "ingestion") for verdict in verdicts))
    _, examples = ingest(newest=4, window=3)
    assert [*json.loads(examples.properties[EARLIER_SPANS])] == ["3", "1"]
    assert {*read(examples)} == {"span-4/40.png", "span-3/30.png", "span-1/10.png"}


def test_a_window_has_a_digest_of_its_own_and_is_cached(ingest, tmp_path):
    data = tmp_path / "data"
    span(data, 1, [example(1)])
    span(data, 2, [example(2)])
    _, single = ingest(newest=2, window=1)
    first, window = ingest(newest=2, window=2)
    second, _ = ingest(newest=2, window=2)
    assert [first.state, second.state] == [NodeState.COMPLETE, NodeState.CACHED]
    assert EARLIER_SPANS not in single.properties
    digests = {
        data_digest(*(examples.properties.get(name, "") for name in DATA_PROPERTIES)) for examples in (single, window)
    }
    assert len(digests) == 2
    address = Address(file=tmp_path / "metadata.db")
    with reader(address) as store:
        assert find_artifact(store, address, tmp_path, "span-1", None).id == window.id
        assert describe(window).endswith("with the earlier spans 1")
    span(data, 3, [example(3)])
    _, moved = ingest(newest=3, window=2)
    # A shard has equal copies in both windows.
    copies = [Path(found.uri, "Split-train", "part-span-2-00000-of-00001.tfrecord") for found in (window, moved)]
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert [*json.loads(moved.properties[EARLIER_SPANS])] == ["2"]
    # A span of the window may change as little as the newest one.
    span(data, 1, [example(7)])
    refused, _ = ingest(newest=3, window=3)
    assert refused.data_refused and "span-1 has changed since it was used" in refused.error


def test_a_damaged_earlier_span_is_refused(ingest, tmp_path):
    span(tmp_path / "data", 1, [example(1), example(2)])
    span(tmp_path / "data", 2, [example(3)])
    shard = tmp_path / "data" / "span-1" / "train" / "part-00000-of-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    refused, _ = ingest(newest=2, window=2)
    assert refused.data_refused and str(shard) in refused.error


def test_a_window_larger_than_the_data_has_all_spans(ingest, tmp_path):
    span(tmp_path / "data", 5, [example(1)])
    _, examples = ingest(newest=5, window=10)
    assert {*read(examples)} == {"span-5/1.png"}
    assert EARLIER_SPANS not in examples.properties

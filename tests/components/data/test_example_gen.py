"""Tests that spans which do not match their manifests are refused when they are ingested."""

import hashlib
import itertools
import json
import os
import shutil

import pytest
import tensorflow as tf
from tfx.dsl.compiler.compiler import Compiler
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import runtime_parameter_utils

from components.data.example_gen import SpanExampleGen
from components.data.ingest import tfrecord
from components.data.ingest.source import SPLITS
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.node import launch
from pipeline.outcome import NodeState
from tests.helpers.spans import write_span

TOO_MANY = {"cat": 9, "dog": 9, "fox": 9}
_runs = itertools.count()


@pytest.fixture
def good(image):
    """Records of a good span of three classes."""

    def records(split, rows):
        return [
            tfrecord.example(image(seed), seed % 3, f"{split}/{seed}.png".encode())
            for seed in range(rows.start, rows.stop)
        ]

    return {
        "train": records("train", range(12)),
        "val": records("val", range(20, 23)),
        "test": records("test", range(30, 33)),
    }


@pytest.fixture
def ingest(tmp_path):
    """Function that runs the ingestion of train and val of a span."""

    def run(span=1):
        node = SpanExampleGen(str(tmp_path / "data"), span, ["train", "val"])
        ir = Compiler().compile(Pipeline("ingestion", str(tmp_path / "root"), components=[node], enable_cache=True))
        runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": f"run-{next(_runs)}"})
        return launch(ir, "SpanExampleGen", Address(file=tmp_path / "metadata.db").connection_config())

    return run


def shard_of(folder, split="train"):
    return folder / split / "part-00000-of-00001.tfrecord"


def rewrite(folder, content, split="train", **changes):
    """Replace the bytes of a shard, and change the manifest to match."""
    shard = shard_of(folder, split)
    shard.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["shards"][f"{split}/{shard.name}"]
    entry |= {"sha256": hashlib.sha256(content).hexdigest()} | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


def odd_example(**features):
    """Return an example with changed features. A feature that is None is left out."""
    whole = {"id": [b"train/odd.png"], "image": [b"png"], "label": [0]} | features

    def feature(values):
        if values and isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    present = {name: feature(values) for name, values in whole.items() if values is not None}
    return tf.train.Example(features=tf.train.Features(feature=present)).SerializeToString()


def test_a_good_span_is_copied_unmodified_and_cached(good, ingest, tmp_path):
    folder = write_span(tmp_path / "data", 1, good)
    assert ingest().state is NodeState.COMPLETE
    copies = sorted((tmp_path / "root").rglob("*.tfrecord"))
    assert [copy.parent.name for copy in copies] == ["Split-train", "Split-val"]
    assert copies[0].read_bytes() == shard_of(folder).read_bytes()
    assert ingest().state is NodeState.CACHED


def test_the_artifact_records_the_span_and_its_digest(good, ingest, tmp_path):
    write_span(tmp_path / "data", 10, good)
    ingest(10)
    with reader(Address(file=tmp_path / "metadata.db")) as store:
        [examples] = store.artifacts("Examples")
    assert examples.properties["span"] == 10
    assert examples.properties["span_folder"] == str(tmp_path / "data" / "span-10")
    assert len(examples.properties["span_digest"]) == 64


def truncated(folder, good):
    rewrite(folder, shard_of(folder).read_bytes()[:-100])


def truncated_secretly(folder, good):
    shard_of(folder).write_bytes(shard_of(folder).read_bytes()[:-100])


def wrong_checksum(folder, good):
    data = bytearray(shard_of(folder).read_bytes())
    data[-1] ^= 1
    rewrite(folder, bytes(data))


def empty_shard(folder, good):
    rewrite(folder, b"")


def no_shard(folder, good):
    shutil.rmtree(folder / "train")


def with_record(record):
    def damage(folder, good):
        content = b"".join(map(tfrecord.frame, [*good["train"][:-1], record]))
        rewrite(folder, content)

    return damage


def lying(**changes):
    def damage(folder, good):
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncated, "found after 'train/10.png' (record 12): "),
        (truncated_secretly, "expected sha256 "),
        (wrong_checksum, "found after 'train/10.png' (record 12): "),
        (empty_shard, "expected 12 examples, found 0"),
        (no_shard, "a split of the span has no shard"),
        (with_record(odd_example(image=None)), "feature 'image': expected one bytes value, found none"),
        (with_record(odd_example(label=[1, 2])), "'train/odd.png': feature 'label': expected one int64 value, found 2"),
        (with_record(odd_example(label=[b"cat"])), "feature 'label': expected one int64 value, found another"),
        (with_record(odd_example(label=[3])), "'train/odd.png': feature 'label': expected 0 to 2, found 3"),
        (with_record(b"no example"), "(record 12): not a tf.Example"),
        (lying(counts=dict.fromkeys(SPLITS, TOO_MANY)), "'cat': expected 9 examples, found 4"),
        (lying(counts={"val": TOO_MANY}), "counts are of val, expected train, val, test"),
        (lying(class_names=["cat", "dog", "owl"]), "expected classes ['cat', 'dog', 'owl']"),
        (lambda folder, good: (folder / "manifest.json").unlink(), "manifest.json: missing"),
        (lambda folder, good: (folder / "manifest.json").write_text("{"), "manifest.json: the file: Invalid JSON"),
    ],
)
def test_a_damaged_span_is_refused_with_the_problem(damage, message, good, ingest, tmp_path):
    folder = write_span(tmp_path / "data", 1, good)
    damage(folder, good)
    outcome = ingest()
    assert (outcome.state, outcome.data_refused) == (NodeState.FAILED, True)
    assert message in outcome.error
    assert str(tmp_path / "data") in outcome.error
    assert not list((tmp_path / "root").rglob("*.tfrecord"))  # no shard was copied


@pytest.mark.parametrize("name", ["manifest.json", "train/part-00000-of-00001.tfrecord"])
@pytest.mark.parametrize("target", [None, "/dev/zero"])
def test_link_or_special_file(name, target, good, ingest, tmp_path):
    """A pipe would block the ingestion, and a device has no end."""
    path = write_span(tmp_path / "data", 1, good) / name
    path.unlink()
    if target is None:
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    outcome = ingest()
    assert outcome.data_refused and f"{path}: a link or special file" in outcome.error


def test_a_span_that_changes_after_it_was_used_is_refused(good, ingest, tmp_path):
    folder = write_span(tmp_path / "data", 1, good)
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    assert ingest().state is NodeState.COMPLETE

    shutil.rmtree(folder)
    write_span(tmp_path / "data", 1, good | {"train": good["train"][:-1]})  # valid, but with other content
    outcome = ingest()
    assert outcome.data_refused
    assert f"{folder} has changed since it was used" in outcome.error

    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    assert ingest().state in (NodeState.COMPLETE, NodeState.CACHED)


def test_a_refused_span_may_be_repaired(good, ingest, tmp_path):
    folder = write_span(tmp_path / "data", 1, good)
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    truncated(folder, good)
    assert ingest().data_refused
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    assert ingest().state is NodeState.COMPLETE

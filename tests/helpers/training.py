"""Inputs of a whole training on generated images: examples, schema and the graph of Transform."""

import json
from pathlib import Path

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.protobuf import text_format
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils

from components.data.ingest import schema, tfrecord
from tests.helpers.spans import encoded
from trainer.preprocessing import preprocessing_fn

SIZE = 8
CLASSES = ("dark", "bright")


def write_graph(folder: Path, stored_size: int = SIZE, **framing: object) -> Path:
    """Run Transform without examples, and return the folder of its graph.

    Args:
        folder: the folder to write to.
        stored_size: side at which the graph keeps images.
        **framing: settings of the framing.
    """
    spec = {
        "image": tf.io.FixedLenFeature([1], tf.string),
        "label": tf.io.FixedLenFeature([1], tf.int64),
        "id": tf.io.FixedLenFeature([1], tf.string),
    }
    config = {"framing": json.dumps({"image_size": SIZE, **framing}), "stored_size": stored_size}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    with beam.Pipeline(FnApiRunner()) as pipeline, tft_beam.Context(str(folder / "tmp")):
        raw = (pipeline | beam.Create([]), metadata)
        graph = raw | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, config))
        _ = graph | tft_beam.WriteTransformFn(str(folder / "graph"))
    metadata_io.write_metadata(metadata, str(folder / "graph" / "metadata"))
    return folder / "graph"


def write_inputs(folder: Path, train: int = 64, val: int = 32) -> dict[str, object]:
    """Write a tiny data set of dark and bright images.

    Args:
        folder: the folder to write to.
        train: number of images to train on.
        val: number of images of the split val.

    Returns:
        The arguments of `trainer.run.run_fn` that name these inputs.
    """
    rng = np.random.default_rng(0)
    for split, count in {"train": train, "val": val}.items():
        (folder / split).mkdir(parents=True)
        with tf.io.TFRecordWriter(str(folder / split / "part")) as writer:
            for number in range(count):
                label = int(rng.integers(2))
                image = rng.integers(0, 100, (SIZE, SIZE, 3)) + 150 * label
                writer.write(tfrecord.example(encoded(image.astype("uint8")), label, b"%03d" % number))
    (folder / "schema.pbtxt").write_text(text_format.MessageToString(schema.build(CLASSES)))
    return {
        "transform_output": str(write_graph(folder)),
        "schema_path": str(folder / "schema.pbtxt"),
        "train_files": [str(folder / "train" / "*")],
        "eval_files": [str(folder / "val" / "*")],
    }

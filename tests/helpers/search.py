"""Tiny data for a search, and a search as a process of its own: `python search.py DATA FOLDER SETTINGS`.

SETTINGS is JSON of `trainer.search_space.TuneSettings`.
"""

import json
import logging
import os
import sys
from pathlib import Path

from tests.helpers.job import MODEL, PLAIN, TRAINING, split


def write_data(folder: Path) -> None:
    """Write the examples, the schema and Transform's graph of two classes that anybody can tell apart."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils

    from components.data.ingest import schema, tfrecord
    from tests.helpers.spans import encoded
    from trainer.preprocessing import preprocessing_fn

    kinds = {"image": tf.string, "label": tf.int64, "id": tf.string}
    spec = {name: tf.io.FixedLenFeature([1], kind) for name, kind in kinds.items()}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    config = {"framing": json.dumps({"image_size": 8}), "stored_size": 8}
    with beam.Pipeline() as pipeline, tft_beam.Context(str(folder / "tmp")):
        raw = (pipeline | beam.Create([]), metadata)
        graph = raw | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, config))
        _ = graph | tft_beam.WriteTransformFn(str(folder / "graph"))
    metadata_io.write_metadata(metadata, str(folder / "graph" / "metadata"))
    (folder / "schema.pbtxt").write_text(schema.text(schema.build(["dark", "bright"])))
    for name, count, seed in ("train", 64, 0), ("val", 40, 1):
        images = split(count, seed)
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for number, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
                writer.write(tfrecord.example(encoded(image), int(label), f"{name}/{number}".encode()))


def job(data: Path, **training: object):
    """Return the job of a search on the data of `write_data`."""
    from trainer.search_space import TrialSettings
    from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
    from trainer.trial_messages import Job

    settings = TrialSettings(
        ModelSettings(**MODEL),
        AugmentSettings(**PLAIN),
        TrainingSettings(**TRAINING | {"checkpoint_seconds": 0} | training),
    )
    files = [str(data / "train")], [str(data / "val")]
    config = {"mean": [128.0] * 3, "std": [64.0] * 3}
    return Job(settings, config, str(data / "schema.pbtxt"), str(data / "graph"), *files)


def main(data: Path, folder: Path, settings: str) -> None:
    from trainer.search_space import TuneSettings
    from trainer.tune import search

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    search(job(data, epochs=6), TuneSettings.model_validate_json(settings), folder)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

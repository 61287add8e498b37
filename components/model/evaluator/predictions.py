"""Predictions of a SavedModel for raw examples, requested as a model server requests them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from components.data.ingest import tfrecord
from trainer.saved_model import open_saved_model
from trainer.serving import class_names

BATCH = 256


SCHEMA = pa.schema({"id": pa.binary(), "label": pa.int64(), "probabilities": pa.list_(pa.float32())})


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model for the examples of some shards, in Parquet files.

    An example has probabilities 0, and so counts as wrong, if the model could not decode its image or answered with
    numbers that are not finite.
    """

    files: list[Path]  # files with SCHEMA, one for each shard
    width: int  # number of classes
    classes: dict[int, str]  # class names that occur in the answers, by label
    names: tuple[str, ...] = ()  # all classes in index order; empty if `trainer.serving.export` did not write the model
    columns: tuple[int, ...] = ()  # place of each class in the files, if it differs from the index

    def reorder(self, names: list[str]) -> "Predictions":
        """Return the predictions with their classes in the order of `names`, a permutation of `self.names`."""
        return replace(
            self,
            classes={names.index(name): name for name in self.classes.values()},
            names=tuple(names),
            columns=tuple(self.names.index(name) for name in names),
        )

    def read(self, file: Path) -> Iterator["Batch"]:
        """Yield the predictions in one of the files, at most BATCH at a time."""
        for batch in pq.ParquetFile(file).iter_batches(BATCH):
            probabilities = batch["probabilities"].flatten().to_numpy().reshape(-1, self.width)
            if self.columns:
                probabilities = probabilities[:, list(self.columns)]
            yield Batch(batch["id"], batch["label"].to_numpy(), probabilities)

    def batches(self) -> Iterator["Batch"]:
        """Yield all predictions, at most BATCH at a time."""
        return chain.from_iterable(map(self.read, self.files))

    def class_difference(self, names: list[str]) -> str:
        """Describe how the model's classes differ from `names`, in index order; empty if they do not differ."""
        if self.width != len(names):
            return f"it has {self.width} classes and the data {len(names)}"
        differences = [
            f"{label} {name!r}, which is {names[label]!r} in the data"
            for label, name in sorted(self.classes.items())
            if names[label] != name
        ]
        return f"it calls class {', '.join(differences)}" if differences else ""


class Batch(NamedTuple):
    """Predictions for N examples."""

    ids: pa.Array
    labels: np.ndarray  # of the examples, int64 [N]
    probabilities: np.ndarray  # float32 [N, classes]


def predict(model: str, shards: Iterable[Path], folder: Path) -> Predictions:
    """Request predictions from the signature `serving_default` of a SavedModel.

    Args:
        model: Folder of the SavedModel.
        shards: TFRecord files of raw examples.
        folder: Empty folder to which the predictions are written. Only a batch is in memory at a time.

    Returns:
        The predictions.

    Raises:
        ValueError: If the model does not load.
    """
    loaded = open_saved_model(model, serving_default="examples")
    signature = loaded.signatures["serving_default"]
    classes: dict[int, str] = {}
    files = []
    width = 0
    for shard in shards:
        files.append(folder / f"{shard.name}.parquet")
        records = tfrecord.read(shard)
        with pq.ParquetWriter(files[-1], SCHEMA) as writer:
            while batch := list(islice(records, BATCH)):
                answers = {output: values.numpy() for output, values in signature(examples=tf.constant(batch)).items()}
                finite = np.isfinite(answers["probabilities"]).all(axis=1)
                probabilities = np.where(finite[:, None], answers["probabilities"], np.float32(0))
                width = probabilities.shape[1]
                examples = [tfrecord.parse(record) for record in batch]
                columns = [
                    [example.id for example in examples],
                    [example.label for example in examples],
                    as_lists(probabilities),
                ]
                writer.write_table(pa.table(columns, schema=SCHEMA))
                valid = answers["valid"] & finite
                pairs = zip(answers["label"][valid].tolist(), answers["class"][valid], strict=True)
                classes |= {label: name.decode() for label, name in pairs}
    return Predictions(files, width, classes, tuple(class_names(signature)))


def as_lists(values: np.ndarray | pa.Array) -> pa.ListArray:
    """Return the rows of an array as lists; single values become lists of one."""
    flat = values.ravel() if isinstance(values, np.ndarray) else values
    return pa.ListArray.from_arrays(np.linspace(0, len(flat), len(values) + 1, dtype=np.int32), flat)

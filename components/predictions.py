"""What a SavedModel answers to raw examples, asked as a model server asks it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.ingest import tfrecord

_BATCH = 256


@dataclass(frozen=True)
class Predictions:
    """Of N examples, in the order of their shards: ids [N], labels int64 [N], probabilities float32 [N, classes].

    An image that the model could not decode has probabilities 0, and so is answered wrong.
    """

    ids: list[bytes]
    labels: np.ndarray
    probabilities: np.ndarray


def predict(model: str, shards: Iterable[Path]) -> Predictions:
    """Asks the signature `serving_default` of the SavedModel folder `model`."""
    loaded = tf.saved_model.load(model)  # held: a signature alone does not keep its weights alive
    answer = loaded.signatures["serving_default"]
    ids, labels, probabilities = [], [], []
    for shard in shards:
        records = list(tfrecord.read(shard))
        examples = [tfrecord.parse(record) for record in records]
        ids += [example.id for example in examples]
        labels += [example.label for example in examples]
        for start in range(0, len(records), _BATCH):
            batch = tf.constant(records[start : start + _BATCH])
            probabilities.append(answer(examples=batch)["probabilities"].numpy())
    return Predictions(ids, np.array(labels, np.int64), np.concatenate(probabilities))

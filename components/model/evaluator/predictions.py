"""Predictions of a SavedModel for raw examples, requested as a model server requests them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.data.ingest import tfrecord
from trainer.saved_model import open_saved_model
from trainer.serving import class_names

_BATCH = 256


@dataclass(frozen=True)
class Predictions:
    """Of N examples, in the order of their shards: ids [N], labels int64 [N], probabilities float32 [N, classes].

    An image that the model could not decode, or answered with what are no finite numbers, has probabilities 0, and so
    is answered wrong. `classes`: the names that the model gave to its answers, by label. `names`: all its classes in
    index order; empty if it is not a model that `trainer.serving.export` wrote.
    """

    ids: list[bytes]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: dict[int, str]
    names: tuple[str, ...] = ()

    def reordered(self, names: list[str]) -> "Predictions":
        """Return the predictions with their classes in the order of `names`, a permutation of `self.names`."""
        columns = [self.names.index(name) for name in names]
        return replace(
            self,
            probabilities=self.probabilities[:, columns],
            classes={names.index(name): name for name in self.classes.values()},
            names=tuple(names),
        )

    def misnamed(self, names: list[str]) -> str:
        """In words, how the model's classes differ from `names`, in index order; empty when they do not."""
        if (width := self.probabilities.shape[1]) != len(names):
            return f"it has {width} classes and the data {len(names)}"
        other = [
            f"{label} {name!r}, which is {names[label]!r} in the data"
            for label, name in sorted(self.classes.items())
            if names[label] != name
        ]
        return f"it calls class {', '.join(other)}" if other else ""


def predict(model: str, shards: Iterable[Path]) -> Predictions:
    """Asks the signature `serving_default` of the SavedModel folder `model`."""
    loaded = open_saved_model(model, serving_default="examples")
    answer = loaded.signatures["serving_default"]
    ids, labels, probabilities = [], [], []
    classes: dict[int, str] = {}
    for shard in shards:
        records = list(tfrecord.read(shard))
        examples = [tfrecord.parse(record) for record in records]
        ids += [example.id for example in examples]
        labels += [example.label for example in examples]
        for start in range(0, len(records), _BATCH):
            batch = tf.constant(records[start : start + _BATCH])
            answers = {output: values.numpy() for output, values in answer(examples=batch).items()}
            finite = np.isfinite(answers["probabilities"]).all(axis=1)
            probabilities.append(np.where(finite[:, None], answers["probabilities"], 0))
            named = answers["valid"] & finite
            pairs = zip(answers["label"][named].tolist(), answers["class"][named], strict=True)
            classes |= {label: name.decode() for label, name in pairs}
    return Predictions(
        ids, np.array(labels, np.int64), np.concatenate(probabilities), classes, tuple(class_names(answer))
    )

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
    """Predictions of one model for N examples, in the order of their shards.

    An example has probabilities 0, and so counts as wrong, if the model could not decode its image or answered with
    numbers that are not finite.
    """

    ids: list[bytes]  # [N]
    labels: np.ndarray  # of the examples, int64 [N]
    probabilities: np.ndarray  # float32 [N, classes]
    classes: dict[int, str]  # class names that occur in the answers, by label
    names: tuple[str, ...] = ()  # all classes in index order; empty if `trainer.serving.export` did not write the model

    def reorder(self, names: list[str]) -> "Predictions":
        """Return the predictions with their classes in the order of `names`, a permutation of `self.names`."""
        columns = [self.names.index(name) for name in names]
        return replace(
            self,
            probabilities=self.probabilities[:, columns],
            classes={names.index(name): name for name in self.classes.values()},
            names=tuple(names),
        )

    def class_difference(self, names: list[str]) -> str:
        """Describe how the model's classes differ from `names`, in index order; empty if they do not differ."""
        if (width := self.probabilities.shape[1]) != len(names):
            return f"it has {width} classes and the data {len(names)}"
        differences = [
            f"{label} {name!r}, which is {names[label]!r} in the data"
            for label, name in sorted(self.classes.items())
            if names[label] != name
        ]
        return f"it calls class {', '.join(differences)}" if differences else ""


def predict(model: str, shards: Iterable[Path]) -> Predictions:
    """Request predictions from the signature `serving_default` of a SavedModel.

    Args:
        model: Folder of the SavedModel.
        shards: TFRecord files of raw examples.

    Returns:
        The predictions.

    Raises:
        ValueError: If the model does not load.
    """
    loaded = open_saved_model(model, serving_default="examples")
    signature = loaded.signatures["serving_default"]
    ids, labels, probabilities = [], [], []
    classes: dict[int, str] = {}
    for shard in shards:
        records = list(tfrecord.read(shard))
        examples = [tfrecord.parse(record) for record in records]
        ids += [example.id for example in examples]
        labels += [example.label for example in examples]
        for start in range(0, len(records), _BATCH):
            batch = tf.constant(records[start : start + _BATCH])
            answers = {output: values.numpy() for output, values in signature(examples=batch).items()}
            finite = np.isfinite(answers["probabilities"]).all(axis=1)
            probabilities.append(np.where(finite[:, None], answers["probabilities"], 0))
            valid = answers["valid"] & finite
            pairs = zip(answers["label"][valid].tolist(), answers["class"][valid], strict=True)
            classes |= {label: name.decode() for label, name in pairs}
    return Predictions(
        ids, np.array(labels, np.int64), np.concatenate(probabilities), classes, tuple(class_names(signature))
    )

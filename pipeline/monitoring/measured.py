"""Answers of a log, with everything that can be measured about their images."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from components.data.ingest.tfrecord import RawExample
from components.data.statistics.measure import measure_images, most_images
from pipeline.monitoring.log_files import Problems
from pipeline.monitoring.reference import Reference, look_measures
from pipeline.monitoring.serving_log import Answer
from trainer.framing import Framing

BATCH_IMAGES, BATCH_BYTES = 256, 8 * 2**20  # answers that are measured at a time
NO_CLASS, OTHER_CLASS = -1, -2  # in place of an index: unknown, and a true class that the model does not have

_TOLERANCE = 0.01  # by which the sum of rounded probabilities may differ from 1


@dataclass(frozen=True)
class MeasuredAnswer:
    """Answer, and what was measured about it."""

    answer: Answer
    version: int  # of the model
    index: int  # of the predicted class, or NO_CLASS
    confidence: float | None
    label: int | None  # index of the true class, or OTHER_CLASS; None if it, or the predicted class, is unknown
    unreadable: bool = False  # the answer is not one that the model can give
    row: Any = None  # of the table of images; None if the log has no image
    distance: float | None = None  # from the training images; None if the image cannot be used

    @property
    def invalid(self) -> bool:
        """True if the image cannot be used."""
        answer = self.answer
        return answer.lost_image or answer.valid is False or (self.row is not None and self.row.reason != "")


class MeasureImages(Protocol):
    """Function that returns measures of the images of answers."""

    def __call__(self, answers: Sequence[Answer], framing: Framing) -> pa.Table:
        """Return a table with a row for each answer, see `components.data.statistics.measure.ROW`.

        Args:
            answers: answers that have an image.
            framing: choices by which an image becomes the model's input.
        """


def measure_images_of(answers: Sequence[Answer], framing: Framing) -> pa.Table:
    """Decode and measure the images of answers, which must fit into memory together. See `MeasureImages`."""
    examples = [
        (place, RawExample(image_digest(answer), answer.image or b"", NO_CLASS)) for place, answer in enumerate(answers)
    ]
    most = most_images(framing)
    tables = [
        measure_images("train", "", framing, examples[start : start + most]) for start in range(0, len(examples), most)
    ]
    return pa.concat_tables(tables).drop_columns(["thumbnail", "digest", "hash"])


def image_digest(answer: Answer) -> bytes:
    """Return a digest of the image of an answer, which is the id of its row."""
    return hashlib.blake2b(answer.image or b"", digest_size=16).digest()


def batches(answers: Iterable[Answer]) -> Iterator[list[Answer]]:
    """Yield answers in batches whose images fit into memory."""
    batch: list[Answer] = []
    size = 0
    for answer in answers:
        batch.append(answer)
        size += len(answer.image or b"")
        if len(batch) >= BATCH_IMAGES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def measure_batch(
    answers: Sequence[Answer],
    reference: Reference,
    labels: dict[str, str],
    problems: Problems,
    measure: MeasureImages = measure_images_of,
) -> list[MeasuredAnswer]:
    """Measure answers whose images fit into memory together.

    Args:
        answers: the answers of one version of a model.
        reference: the reference of that version.
        labels: true classes by the id of an answer, or by the sha256 of its image.
        problems: counts answers that do not fit the model.
        measure: function that measures the images.
    """
    read = [_read(answer, reference, labels, problems) for answer in answers]
    places = [place for place, answer in enumerate(answers) if answer.image is not None]
    if not places:
        return read
    rows = measure([answers[place] for place in places], reference.framing).to_pandas()
    # The predicted class takes the place of the label, so that the statistics count the predicted classes.
    rows["label"] = [read[place].index for place in places]
    usable = rows[rows.reason == ""]
    distances = np.full(len(rows), np.nan)
    if len(usable):
        looks = look_measures(
            np.stack(usable["mean"]), np.stack(usable["mean_square"]), usable.sharpness.to_numpy(float)
        )
        distances[usable.index] = reference.looks.distance(looks)
    for place, row, distance in zip(places, rows.itertuples(index=False), distances.tolist(), strict=True):
        read[place] = replace(read[place], row=row, distance=None if np.isnan(distance) else distance)
    return read


def as_table(measured: Iterable[MeasuredAnswer]) -> pd.DataFrame:
    """Return the rows of the table of images of all answers that have an image."""
    return pd.DataFrame([item.row for item in measured if item.row is not None])


def _read(answer: Answer, reference: Reference, labels: dict[str, str], problems: Problems) -> MeasuredAnswer:
    classes = reference.classes
    index, confidence, unreadable = NO_CLASS, None, False
    probabilities = answer.probabilities
    if probabilities is not None:
        # A row of zeros is the answer for an image that does not decode.
        if probabilities.shape == (len(classes),) and _are_probabilities(probabilities):
            if probabilities.any():
                index, confidence = int(probabilities.argmax()), float(probabilities.max())
        else:
            unreadable = True
            reason = (
                f"an answer that is not a probability for each of the {len(classes)} classes: log a list of "
                f"{len(classes)} numbers from 0 to 1 that add up to 1, in index order"
            )
            problems.add(reason, answer.place)
    elif answer.class_name:
        if answer.class_name in classes:
            index = classes.index(answer.class_name)
            if answer.confidence is not None and answer.confidence <= 1:
                confidence = answer.confidence
        else:
            unreadable = True
            reason = "an answer with a class that the model does not have: log the name as the model returns it"
            problems.add(reason, f"{answer.place} {answer.class_name!r}")
    label = answer.label
    if label is None and labels:
        label = labels.get(answer.id) or labels.get(answer.digest)
    # Nobody knows whether an answer is right that the log does not contain, or that cannot be read.
    if label is None or unreadable or (probabilities is None and not answer.class_name):
        return MeasuredAnswer(answer, reference.version, index, confidence, None, unreadable)
    if label not in classes:
        reason = "a true label that the model does not have, so its answer is wrong: correct the label, or leave it out"
        problems.add(reason, f"{answer.place} {label!r}")
        return MeasuredAnswer(answer, reference.version, index, confidence, OTHER_CLASS)
    return MeasuredAnswer(answer, reference.version, index, confidence, classes.index(label))


def _are_probabilities(values: np.ndarray) -> bool:
    total = float(values.sum())
    return bool(np.isfinite(values).all() and (values >= 0).all() and (abs(total - 1) <= _TOLERANCE or total == 0))

"""What happened in each epoch: a log line, a line of JSON, and TensorBoard's curves."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

log = logging.getLogger(__name__)

FILE = "history.jsonl"

Row = dict[str, float]  # the figures of one epoch by name, as `History` lists them


class History:
    """The rows of all epochs. `folder`, if any, receives them as `history.jsonl` and as TensorBoard event files.

    A row holds epoch (from 1), loss, accuracy, val_loss, val_accuracy, learning_rate, images_per_second and seconds.
    `earlier` rows, of a training that goes on, are written out again first.
    """

    def __init__(self, folder: Path | None, epochs: int, earlier: Sequence[Row]):
        self.folder, self.epochs = folder, epochs
        self.rows: list[Row] = []
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FILE).unlink(missing_ok=True)
            self._curves = tf.summary.create_file_writer(str(folder))
        for row in earlier:
            self._keep(row)

    def add(self, row: Row) -> None:
        self._keep(row)
        log.info(
            "epoch %d/%d  loss %.3f  accuracy %.3f  val %.3f  %.0f images/s  %.0f s",
            row["epoch"],
            self.epochs,
            row["loss"],
            row["accuracy"],
            row["val_accuracy"],
            row["images_per_second"],
            row["seconds"],
        )

    def best(self) -> Row:
        """The row of the best epoch on val; the first of several."""
        return max(self.rows, key=lambda row: row["val_accuracy"])

    def _keep(self, row: Row) -> None:
        self.rows.append(row)
        if self.folder is None:
            return
        with (self.folder / FILE).open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self._curves.as_default(step=row["epoch"]):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
        self._curves.flush()

"""History of a training: a log line, a line of JSON and TensorBoard scalars for each epoch."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

log = logging.getLogger(__name__)

FILE = "history.jsonl"

Row = dict[str, float]  # figures of one epoch by name; `History` lists the names


class History:
    """Figures of all epochs of a training.

    A row holds epoch (from 1), loss, accuracy, learning_rate, images_per_second and seconds, and also val_loss and
    val_accuracy unless val was trained on.

    Args:
        folder: Folder in which to write the rows as `history.jsonl` and as TensorBoard event files. A `history.jsonl`
            that is there already is replaced. None: nothing is written.
        epochs: Number of the last epoch, for the log.
        earlier: Rows of the epochs before, if a training continues. They are written again.
    """

    def __init__(self, folder: Path | None, epochs: int, earlier: Sequence[Row]) -> None:
        self.folder, self.epochs = folder, epochs
        self.rows: list[Row] = []
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FILE).unlink(missing_ok=True)
            self._curves = tf.summary.create_file_writer(str(folder))
        for row in earlier:
            self._keep(row)

    def add(self, row: Row) -> None:
        """Add, write and log the row of an epoch."""
        self._keep(row)
        log.info(
            "epoch %d/%d  loss %.3f  accuracy %.3f  %s%.0f images/s  %.0f s",
            row["epoch"],
            self.epochs,
            row["loss"],
            row["accuracy"],
            f"val {row['val_accuracy']:.3f}  " if "val_accuracy" in row else "",
            row["images_per_second"],
            row["seconds"],
        )

    def best(self) -> Row:
        """Return the row of the epoch to export, see `best_row`."""
        return best_row(self.rows)

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


def best_row(rows: Sequence[Row]) -> Row:
    """Return the row of the epoch to export.

    It has the highest accuracy on val, and is the first one if several are equal. If val was trained on, it is the last
    row.
    """
    return max(rows, key=lambda row: row.get("val_accuracy", row["epoch"]))

"""Figures of a run that its report draws."""

from collections.abc import Sequence

from trainer.settings import Group


class Epoch(Group):
    """One epoch in the history of a training. Accuracies are between 0 and 1."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None = None  # None if val was trained on, as for val_accuracy
    val_accuracy: float | None = None
    learning_rate: float  # at the end of the epoch
    images_per_second: float
    seconds: float


def best_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """Return the epoch whose model is exported; None if there are no epochs.

    It has the highest accuracy on val, and is the first one if several are equal. If val was trained on, it is the last
    epoch.
    """
    return max(history, key=lambda row: row.epoch if row.val_accuracy is None else row.val_accuracy, default=None)


class Bin(Group):
    """Test images that the model answers with similar confidence."""

    examples: int
    confidence: float  # mean probability of the answers
    accuracy: float  # share of correct answers

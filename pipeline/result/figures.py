"""Figures of a run that its report draws."""

from trainer.settings import Group


class Epoch(Group):
    """One epoch in the history of a training. Accuracies are between 0 and 1."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float  # at the end of the epoch
    images_per_second: float
    seconds: float


class Bin(Group):
    """Test images that the model answers with similar confidence."""

    examples: int
    confidence: float  # mean probability of the answers
    accuracy: float  # share of correct answers

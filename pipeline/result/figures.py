"""Figures of a run, as its report draws them."""

from trainer.settings import Group


class Epoch(Group):
    """A row of the training's history."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float


class Bin(Group):
    """Test images that the model is about equally sure of."""

    examples: int
    confidence: float  # mean of the answers' probabilities
    accuracy: float

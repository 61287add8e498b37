"""Fine-tuning: a pretrained backbone with a new head, trained in two phases."""

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.checkpoint import Checkpoints
from trainer.input import Split
from trainer.settings import AugmentSettings, FinetuneSettings, ModelSettings, TrainingSettings
from trainer.train import Trained, train
from trainer.vit import ViT, copy_weights

log = logging.getLogger(__name__)

OWN = {"image_size", "dropout", "stochastic_depth"}  # what the settings of the model say; the rest is the backbone's
_HEAD = ("head", "score")  # the classifier, and what seqpool weighs the tokens with for it


class Phase(NamedTuple):
    """`blocks`, `learning_rate` and so on as `FinetuneSettings` names them; with 0 blocks only the head is trained."""

    number: int
    blocks: int | None
    epochs: int
    learning_rate: float
    weight_decay: float


def phases(finetune: FinetuneSettings) -> list[Phase]:
    """Those that have epochs: the new head alone, then with it the last blocks."""
    both = (
        Phase(1, 0, finetune.head_epochs, finetune.head_learning_rate, 0.0),
        Phase(2, finetune.blocks, finetune.epochs, finetune.learning_rate, finetune.weight_decay),
    )
    return [phase for phase in both if phase.epochs]


def fine_tune(
    backbone: ViT,
    model: ModelSettings,
    finetune: FinetuneSettings,
    training: TrainingSettings,
    classes: int,
    augmentation: AugmentSettings,
    train_split: Split,
    val_split: Split,
    log_dir: Path,
    checkpoints: Path,
    strategy: tf.distribute.Strategy | None = None,
) -> Trained:
    """Train the new head alone, then with it the last blocks; the best epoch is that of both phases.

    The first phase has no weight decay, and of the model only the head is trained. checkpoints: what the folders of the
    two phases' checkpoints are named by. The rest is what `trainer.train.train` takes.
    """
    trained = None
    for phase in phases(finetune):
        of_phase = {
            "epochs": phase.epochs,
            "learning_rate": phase.learning_rate,
            "weight_decay": phase.weight_decay,
            "warmup_epochs": 0,
            "final_learning_rate": 0,
        }
        words = _in_words(phase.blocks, len(backbone.blocks))
        log.info("phase %d: %s, learning rate %g", phase.number, words, phase.learning_rate)
        trained = train(
            partial(adapt, backbone, model, classes, phase.blocks),
            classes=classes,
            augmentation=augmentation,
            training=training.model_copy(update=of_phase),
            train_split=train_split,
            val_split=val_split,
            log_dir=log_dir,
            checkpoints=Checkpoints(checkpoints.with_name(f"{checkpoints.name}-{phase.number}")),
            strategy=strategy,
            start=trained.best if trained else None,
            earlier=trained.rows if trained else (),
        )
    assert trained is not None  # the settings ask for an epoch
    return trained


def adapt(backbone: ViT, model: ModelSettings, classes: int, blocks: int | None, policy: str = "float32") -> ViT:
    """The backbone with a new head for `classes` classes, frozen but for the head and, above 0, the last `blocks`.

    With blocks also the norm after them is trained; with None all of the model. Image size, dropout and stochastic
    depth are those of `model`, and positions are resized to that image size; all else is the backbone's, its mean and
    std too: its weights were learned on pixels that were normalised so.
    """
    own = model.model_dump(include=OWN)
    adapted = ViT(
        # Mimetic weights would be made at some cost, and overwritten.
        **{**backbone.config, **own, "classes": classes, "mimetic": False},
        dtype=keras.DTypePolicy(policy),
        name="vit",
    )
    copy_weights(backbone, adapted, but=["head"])
    if blocks is not None:
        trained = [adapted.norm, *adapted.blocks[-blocks:]] if blocks else []
        for layer in adapted.layers:
            layer.trainable = layer.name in _HEAD or layer in trained
    return adapted


def rebuild_head(start: ViT, model: ModelSettings, old: list[str], new: list[str]) -> ViT:
    """Return a copy of a ViT with a head for other classes.

    The weights of a class go to the class of the same name; those of a new class are 0, as in a new model.

    Args:
        start: the ViT; all its weights but the head's are copied.
        model: the new ViT's settings, as for `adapt`.
        old: classes of `start`, in index order.
        new: classes of the new ViT, in index order.
    """
    rebuilt = adapt(start, model, len(new), None)
    old_kernel, old_bias = start.head.get_weights()
    kernel, bias = rebuilt.head.get_weights()
    for index, name in enumerate(new):
        if name in old:
            kernel[:, index], bias[index] = old_kernel[:, old.index(name)], old_bias[old.index(name)]
    rebuilt.head.set_weights([kernel, bias])
    return rebuilt


def _in_words(blocks: int | None, depth: int) -> str:
    if blocks is None:
        return "the whole model"
    return f"the head and the last {min(blocks, depth)} of {depth} blocks" if blocks else "the head"

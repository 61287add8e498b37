"""Fine-tuning: a pretrained backbone with a new head, trained in two phases."""

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.checkpoint import Checkpoints
from trainer.input import Split
from trainer.settings import (
    REPLACED_IN_FINETUNING,
    AugmentSettings,
    FinetuneSettings,
    ModelSettings,
    TrainingSettings,
)
from trainer.train import Trained, train
from trainer.vit import ViT, copy_weights

log = logging.getLogger(__name__)

# Settings of the model that apply; the backbone decides the rest.
OWN = {"image_size", "resize", "background", "dropout", "stochastic_depth", "flip_average"}
_HEAD = ("head", "score")  # layers of the head: the classifier, and the scores by which seqpool weights the tokens


class Phase(NamedTuple):
    """One phase of a fine-tuning. Fields are named as in `FinetuneSettings`; 0 blocks: only the head is trained."""

    number: int
    blocks: int | None
    epochs: int
    learning_rate: float
    weight_decay: float


def phases(finetune: FinetuneSettings) -> list[Phase]:
    """Return the phases that have epochs, if any: the new head alone, then the head and the last blocks."""
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
    """Fine-tune a backbone in two phases: the new head alone, then the head and the last blocks.

    The second phase starts from the best weights of the first. The best epoch is chosen among those of both phases.

    Args:
        backbone: The pretrained ViT.
        model: Settings of the model, of which those in `OWN` apply.
        finetune: Epochs, learning rates, weight decay and blocks of the phases.
        training: All other settings of the training.
        classes: Number of classes of the new head.
        augmentation: Settings of the augmentation.
        train_split: Images to train on.
        val_split: Images that select the best epoch, unless `training.use_val` selects the last one.
        log_dir: Folder of the history.
        checkpoints: Path of the checkpoint folders without their suffixes: those of the phases end in `-1` and `-2`.
        strategy: Strategy that distributes a step over devices. None: one device.

    Returns:
        The models of the best and of the last epoch, and the history of both phases.

    Raises:
        FloatingPointError: If a loss is not finite.
        ValueError: If no phase has epochs, or the settings do not fit the data, the devices or the backbone.
    """
    trained = None
    for phase in phases(finetune):
        layers = _describe_layers(phase.blocks, len(backbone.blocks))
        log.info("phase %d: %s, learning rate %g", phase.number, layers, phase.learning_rate)
        trained = train(
            partial(adapt, backbone, model, classes, phase.blocks),
            classes=classes,
            augmentation=augmentation,
            training=training_of_phase(training, phase),
            train_split=train_split,
            val_split=val_split,
            log_dir=log_dir,
            checkpoints=Checkpoints(checkpoints.with_name(f"{checkpoints.name}-{phase.number}")),
            strategy=strategy,
            start=trained.best if trained else None,
            earlier=trained.rows if trained else (),
        )
    if trained is None:
        raise ValueError("finetune.head_epochs and finetune.epochs are both 0: raise one of them")
    return trained


def training_of_phase(training: TrainingSettings, phase: Phase) -> TrainingSettings:
    """Return the settings of the training in one phase of a fine-tuning.

    Args:
        training: Settings of the training, whose `REPLACED_IN_FINETUNING` do not apply.
        phase: The phase.
    """
    values = (phase.epochs, phase.learning_rate, phase.weight_decay, 0, 0)  # no warmup, and a last learning rate of 0
    return training.model_copy(update=dict(zip(REPLACED_IN_FINETUNING, values, strict=True)))


def accept(backbone: ViT, old: list[str], new: list[str], flip_average: bool) -> Trained:
    """Return a trained ViT as the result of a training without epochs.

    Only the order of its classes and `flip_average` may change.

    Args:
        backbone: The ViT.
        old: Class names of the ViT, in index order. If the list is empty, they are assumed to be `new`.
        new: Class names of the data, in index order.
        flip_average: Whether the returned ViT averages its logits over an image and its mirror image.

    Returns:
        The ViT as the best and as the last model, and an empty history.

    Raises:
        ValueError: If the ViT has other classes.
    """
    check_accepted(backbone, old, new)
    accepted = rebuild_head(backbone, None, old or new, new)
    accepted.config["flip_average"] = flip_average
    return Trained(accepted, accepted, [])


def check_accepted(backbone: ViT, old: list[str], new: list[str]) -> None:
    """Raise ValueError if a ViT has other classes than the data. The arguments are those of `accept`."""
    count = backbone.config["classes"]
    fix = "use data with the classes of the model, or set finetune.head_epochs above 0 to train a new head"
    if count != len(new):
        raise ValueError(f"the model has {count} classes, but the data has {len(new)}: {fix}")
    missing, unexpected = (sorted(set(one) - set(other))[:5] for one, other in ((new, old), (old, new)))
    if old and missing:
        raise ValueError(f"the model lacks the classes {missing} of the data, and has {unexpected} instead: {fix}")


def adapt(backbone: ViT, model: ModelSettings | None, classes: int, blocks: int | None, policy: str = "float32") -> ViT:
    """Return a copy of a backbone with a new head, of which only some layers are trainable.

    The mean and std of the backbone are kept, because its weights were learned on pixels normalised with them. Position
    embeddings are resized to the new image size.

    Args:
        backbone: The pretrained ViT.
        model: Settings of the new model, of which those in `OWN` apply. None: those of the backbone.
        classes: Number of classes of the new head.
        blocks: Number of last blocks that are trainable, together with the head and the final norm. 0: only the head
            is trainable. None: all layers are.
        policy: Keras dtype policy of the new model.

    Returns:
        The new ViT. The weights of its classifier are new.
    """
    own = model.model_dump(include=OWN) if model else {}
    adapted = ViT(
        # Mimetic weights would take time to make, and would then be overwritten by those of the backbone.
        **{**backbone.config, **own, "classes": classes, "mimetic": False},
        dtype=keras.DTypePolicy(policy),
        name="vit",
    )
    copy_weights(backbone, adapted, exclude=["head"])
    if blocks is not None:
        trainable = [adapted.norm, *adapted.blocks[-blocks:]] if blocks else []
        for layer in adapted.layers:
            layer.trainable = layer.name in _HEAD or layer in trainable
    return adapted


def rebuild_head(start: ViT, model: ModelSettings | None, old: list[str], new: list[str]) -> ViT:
    """Return a copy of a ViT with a head for other classes.

    The head's weights are copied to classes of the same name. Those of a new class are 0, as in a new model.

    Args:
        start: The ViT. All its other weights are copied unchanged, but for position embeddings, which are resized to a
            new image size.
        model: Settings of the new ViT, as for `adapt`.
        old: Class names of `start`, in index order.
        new: Class names of the new ViT, in index order.

    Returns:
        The new ViT, in float32 and trainable as a whole.
    """
    rebuilt = adapt(start, model, len(new), None)
    old_kernel, old_bias = start.head.get_weights()
    kernel, bias = rebuilt.head.get_weights()
    for index, name in enumerate(new):
        if name in old:
            kernel[:, index], bias[index] = old_kernel[:, old.index(name)], old_bias[old.index(name)]
    rebuilt.head.set_weights([kernel, bias])
    return rebuilt


def _describe_layers(blocks: int | None, depth: int) -> str:
    if blocks is None:
        return "the whole model"
    return f"the head and the last {min(blocks, depth)} of {depth} blocks" if blocks else "the head"

"""Settings of the label check. Every command imports this module, so it imports neither TFX nor NumPy."""

from pydantic import Field

from trainer.settings import MOST_EPOCHS, SettingsGroup


class LabelCheckSettings(SettingsGroup):
    """Settings of the label check, which lists images whose label is probably wrong, before the data gate.

    It trains a small ViT of depth 4 and width 64 once for each fold, and classifies the images of a fold with the ViT
    that was trained on the other folds.
    """

    epochs: int = Field(
        0,
        ge=0,
        le=MOST_EPOCHS,
        description="Epochs of each training. The check takes as long as epochs x (folds - 1) epochs of the small ViT "
        "on all images. 0: labels are not checked.",
    )
    folds: int = Field(
        3,
        ge=2,
        le=100,
        description="Number of parts that the images of train, val and test are divided into. With more folds, each "
        "ViT learns from more images, and the check takes longer.",
    )

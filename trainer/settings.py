"""Settings of the model, the augmentation and the training."""

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trainer.framing import Framing, Resize
from trainer.sizes import check_batch, check_crops, check_model

SIZES = {
    "tiny": {"depth": 6, "width": 256, "heads": 4},
    "small": {"depth": 8, "width": 384, "heads": 6},
    "base": {"depth": 12, "width": 768, "heads": 12},
    "large": {"depth": 24, "width": 1024, "heads": 16},
    "huge": {"depth": 32, "width": 1280, "heads": 16},
}


MOST_EPOCHS = 100_000
MOST_WORKERS = 1_024

_YEAR = 366 * 24 * 3600  # seconds


class Group(BaseModel):
    """Base class of groups of values. They are immutable, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SettingsGroup(Group):
    """Base class of groups of settings.

    Numbers must be finite, because comparisons with a bound may not notice NaN. Every number has a smallest and a
    largest value; a test checks each field for both.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def reject_booleans_as_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Reject true and false as values of numbers. Pydantic would read them as 1 and 0."""
        if _has_number(cls.model_fields[str(info.field_name)].annotation) and _has_boolean(value):
            raise ValueError("Input should be a number, not true or false")
        return value


def _has_number(annotation: object) -> bool:
    """Return whether a type annotation is that of a number, or of a list or mapping with numbers."""
    return annotation in (int, float) or any(map(_has_number, get_args(annotation)))


def _has_boolean(value: object) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(map(_has_boolean, parts))


def check_path_characters(text: str) -> str:
    """Return the text of a path unchanged.

    Raises:
        ValueError: If the text contains a control character or a surrogate, which file names or records cannot hold.
    """
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise ValueError(f"a path cannot contain the character U+{ord(character):04X}: remove it")
    return text


Pool = Literal["cls", "mean", "seqpool"]
PixelValue = Annotated[int, Field(ge=0, le=255)]  # red, green or blue of a pixel
RENAMED = {"head": "pool"}  # current names of the model's settings, by their names in earlier versions


def current_names(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a model, recorded by this version or an earlier one, under their current names."""
    return {RENAMED.get(name, name): value for name, value in model.items()}


class ModelSettings(SettingsGroup):
    """Settings of the ViT. The defaults are ViT-Tiny for 32x32 images: 4,771,082 parameters with ten classes."""

    size: Literal["tiny", "small", "base", "large", "huge"] | None = Field(
        None, description="Named size, which sets depth, width and heads. null: set these three directly."
    )
    image_size: int = Field(
        32,
        gt=0,
        le=4096,
        description="Side of the model's square input, in pixels. Images of another size are resized to it.",
    )
    resize: Resize = Field(
        "stretch",
        description="Method that makes an image square. stretch: squash it. crop: keep the middle of its "
        "longer side, as in the usual evaluation of ImageNet models. pad: add bars to its shorter side.",
    )
    background: tuple[PixelValue, PixelValue, PixelValue] = Field(
        (255, 255, 255),
        description="Red, green and blue, from 0 to 255, of the bars that pad adds, and behind transparent pixels.",
    )
    patch_size: int = Field(
        4, gt=0, le=4096, description="Side of a patch, in pixels. image_size must be a multiple of it."
    )
    depth: int = Field(SIZES["tiny"]["depth"], gt=0, le=1_000, description="Number of encoder blocks.")
    width: int = Field(
        SIZES["tiny"]["width"], gt=0, le=65_536, description="Width of a token. It must be a multiple of heads."
    )
    heads: int = Field(SIZES["tiny"]["heads"], gt=0, le=1_024, description="Number of attention heads of a block.")
    mlp_ratio: int = Field(4, gt=0, le=64, description="Hidden units of each block's MLP, as a multiple of width.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Rate of dropout on the embeddings and inside the blocks.")
    stochastic_depth: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Probability with which training skips a branch of the last block. It rises linearly to this value "
        "from 0 in the first block.",
    )
    pool: Pool = Field(
        "cls",
        description="Summary of the tokens that the classifier reads: the CLS token, the mean of the tokens, or their "
        "mean weighted by a learned score (seqpool).",
    )
    conv_stem: bool = Field(False, description="Embed patches with 3x3 convolutions instead of one matrix.")
    mimetic: bool = Field(
        False, description="Initialize attention to look like that of trained models. It helps on small data sets."
    )

    flip_average: bool = Field(
        False,
        description="Average the logits of each image and its mirror image in the exported model. A prediction then "
        "takes twice the computation; training is unaffected. Use it only if mirroring does not change the class.",
    )

    @property
    def framing(self) -> Framing:
        """Choices by which an image becomes the model's input."""
        return Framing.of(self.model_dump())

    @model_validator(mode="before")
    @classmethod
    def fill_from_size(cls, values: object) -> object:
        """Set depth, width and heads according to `size`. Reject values that contradict it."""
        if not isinstance(values, dict):
            return values
        size = values.get("size")
        if not isinstance(size, str) or size not in SIZES:  # the check of the field itself rejects unknown sizes
            return values
        for key, value in SIZES[size].items():
            if values.get(key, value) != value:
                raise ValueError(
                    f"size {size} sets {key} to {value}, but {key} is {values[key]} (perhaps in the preset): set "
                    "depth, width and heads, or set size alone"
                )
        return {**values, **SIZES[size]}

    @model_validator(mode="after")
    def check_sizes(self) -> Self:
        """Reject sizes that do not fit each other."""
        check_model(self.model_dump())
        return self


_Share = Annotated[float, Field(gt=0, le=1)]
_Ratio = Annotated[float, Field(ge=0.01, le=100)]


class AugmentSettings(SettingsGroup):
    """Augmentation of training images. The defaults are the recipe for 200 epochs; a short training needs less."""

    crop_padding: int = Field(
        4,
        ge=0,
        le=4096,
        description="Largest shift of a random crop, in pixels. 0 turns random crops off. It must be 0 with resized "
        "crops.",
    )
    stored_size: int | None = Field(
        None,
        gt=0,
        le=4096,
        description="Side in pixels at which training images are kept. Resized crops of images that are larger than "
        "the model's input keep more detail, but the images take more room in TMPDIR. null: the size of the model's "
        "input.",
    )
    resized_crop_scale: tuple[_Share, _Share] | None = Field(
        None,
        description="Smallest and largest area of a random resized crop, as shares of the image, for example "
        "[0.08, 1]. null: no resized crops.",
    )
    resized_crop_ratio: tuple[_Ratio, _Ratio] = Field(
        (3 / 4, 4 / 3), description="Smallest and largest ratio of width to height of a random resized crop."
    )
    flip: bool = Field(
        True, description="Mirror half of the images. It suits most photographs, but not digits or text."
    )
    randaugment_ops: int = Field(
        2, ge=0, le=100, description="Number of RandAugment operations for each image. 0 turns RandAugment off."
    )
    randaugment_magnitude: float = Field(9.0, ge=0, le=10, description="Mean strength of a RandAugment operation.")
    randaugment_std: float = Field(
        0.5, ge=0, le=10, description="Standard deviation of the strength of RandAugment operations."
    )
    randaugment_probability: float = Field(
        0.5, ge=0, le=1, description="Probability with which each RandAugment operation is applied."
    )
    three_augment: bool = Field(
        False, description="Make each image grey, or solarize or blur it, with equal probability (DeiT III)."
    )
    colour_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest relative change of brightness, contrast and saturation. 0 turns colour jitter off.",
    )
    mixup: float = Field(
        0.8, ge=0, le=1_000, description="Parameter alpha of Mixup's Beta distribution. 0 turns Mixup off."
    )
    cutmix: float = Field(
        1.0,
        ge=0,
        le=1_000,
        description="Parameter alpha of CutMix's Beta distribution. 0 turns CutMix off. If Mixup is on as well, each "
        "image gets one of the two, with equal probability.",
    )
    mixing_epochs: float = Field(
        0.6, ge=0, le=1, description="Fraction of the epochs, counted from the first, in which Mixup and CutMix are on."
    )
    mixing_probability: float = Field(
        1.0, ge=0, le=1, description="Probability with which an image is mixed, in the epochs with Mixup or CutMix."
    )
    erase: float = Field(0.25, ge=0, le=1, description="Probability with which a random rectangle is erased.")

    @model_validator(mode="after")
    def check_crops(self) -> Self:
        """Reject settings of crops that contradict each other."""
        check_crops(self.model_dump())
        return self


class TrainingSettings(SettingsGroup):
    """Settings of a training. For fine-tuning, FinetuneSettings has the epochs, learning rates and weight decay."""

    epochs: int = Field(200, gt=0, le=MOST_EPOCHS, description="Number of passes over the training images.")
    batch_size: int = Field(256, gt=0, le=2**20, description="Images of one optimizer step, on all devices together.")
    accumulate: int = Field(
        1,
        gt=0,
        le=2**19,
        description="Number of parts in which a batch is computed, one after the other, to save memory. batch_size "
        "must be a multiple of 2 x accumulate x workers.",
    )
    workers: int = Field(
        1,
        gt=0,
        le=MOST_WORKERS,
        description="Number of worker processes that train one model together. Each computes an equal part of every "
        "batch, on an equal share of this machine's cores and GPUs. On Kubeflow, each worker is a pod.",
    )
    learning_rate: float = Field(
        5e-4,
        gt=0,
        le=1_000,
        description="Peak learning rate. The default is for ViT-Tiny with AdamW and a batch size of 256. The presets "
        "for smaller models use three to four times as much.",
    )
    warmup_epochs: float = Field(
        10, ge=0, le=MOST_EPOCHS, description="Epochs in which the learning rate rises linearly from 0 to its peak."
    )
    final_learning_rate: float = Field(
        1e-5, ge=0, le=1_000, description="Learning rate at the last step. It falls to this value along a cosine."
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="Optimizer. muon: Muon for the matrices of the encoder blocks, AdamW for all other weights.",
    )
    weight_decay: float = Field(0.05, ge=0, le=1_000, description="Weight decay. It applies to matrices only.")
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="Share of each label's probability that is spread evenly over all classes."
    )
    ema_epochs: float = Field(
        5.0,
        ge=0,
        le=MOST_EPOCHS,
        description="Horizon, in epochs, of the weight average that is evaluated and exported. 0: no average.",
    )
    teacher_epochs: int = Field(
        0,
        ge=0,
        le=MOST_EPOCHS,
        description="Number of epochs for which a small CNN, the teacher, is trained before the ViT. The ViT then also "
        "learns from the teacher's probabilities. It needs an image_size that is a multiple of 8. Trials of a tuning "
        "have no teacher. 0: no teacher.",
    )
    teacher_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the teacher's probabilities in the targets. The labels have the remaining weight.",
    )
    use_val: bool = Field(
        False,
        description="Also train on the images of val. Then no images are left to select an epoch, so the model of the "
        "last epoch is exported and accuracy on val is not measured. Trials of a tuning do not train on val.",
    )
    patience: int | None = Field(
        None,
        gt=0,
        le=MOST_EPOCHS,
        description="Epochs without a better val accuracy before training stops. null: it never stops early.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Floating-point type of the computation; weights stay float32. auto: the best that the device "
        "supports.",
    )
    warm_start: bool = Field(False, description="Start from the weights of the model that serves now, if there is one.")
    tuned: bool = Field(
        False,
        description="Train with the values that the newest `vitpipe tune` of this pipeline found. They replace those "
        "of the preset and the file.",
    )
    checkpoint_seconds: float = Field(
        60.0,
        ge=0,
        le=_YEAR,
        description="Least time between two checkpoints, in seconds. They are written at the end of an epoch.",
    )
    require_gpu: bool = Field(False, description="Fail before training if TensorFlow sees no GPU.")
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of the initial weights, the order of the images and the augmentation."
    )

    @model_validator(mode="after")
    def check_warmup(self) -> Self:
        """Reject a warmup that is not shorter than the training."""
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be less than epochs {self.epochs}")
        return self

    @model_validator(mode="after")
    def check_patience(self) -> Self:
        """Reject patience for a training that does not measure accuracy on val."""
        if self.use_val and self.patience is not None:
            raise ValueError(
                f"patience {self.patience} compares accuracies on val, which use_val trains on: set patience to null, "
                "or use_val to false"
            )
        return self

    @model_validator(mode="after")
    def check_batch_size(self) -> Self:
        """Reject a batch that cannot be split into the parts of the workers."""
        check_batch(self.batch_size, self.accumulate * self.workers)
        return self


def teacher_settings(
    augmentation: AugmentSettings, training: TrainingSettings
) -> tuple[AugmentSettings, TrainingSettings]:
    """Return the settings with which the teacher of a ViT is trained.

    Only crops and flips are applied, because a CNN learns fastest with them. Warmup and weight average take the same
    fraction of the training as for the ViT.

    Args:
        augmentation: Settings of the ViT's augmentation.
        training: Settings of the ViT's training.
    """
    share = training.teacher_epochs / training.epochs
    without = ("randaugment_ops", "colour_jitter", "mixup", "cutmix", "erase")
    return (
        augmentation.model_copy(update={"three_augment": False, **dict.fromkeys(without, 0)}),
        training.model_copy(
            update={
                "epochs": training.teacher_epochs,
                "warmup_epochs": training.warmup_epochs * share,
                "ema_epochs": training.ema_epochs * share,
                "teacher_epochs": 0,
            }
        ),
    )


_Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
_Spread = Annotated[float, Field(ge=1, le=1e6)]


# Settings of a training that have no effect on a fine-tuning, because each of its phases has its own.
REPLACED_IN_FINETUNING = ("epochs", "learning_rate", "weight_decay", "warmup_epochs", "final_learning_rate")


class FinetuneSettings(SettingsGroup):
    """Settings of fine-tuning a pretrained backbone in two phases: the new head alone, then with it the last blocks.

    In each phase the learning rate falls along a cosine to 0. The backbone decides the depth, width and so on. If both
    phases have 0 epochs, the backbone is not trained and keeps its head. It is tested, and pushed if it passes.
    """

    source: Annotated[str, AfterValidator(check_path_characters)] = Field(
        "",
        description="Backbone to start from: a pipeline (the model it serves), a version folder, a .keras or "
        ".weights.h5 file, the folder of a KerasHub preset, or hub:PRESET. Empty: train from scratch.",
    )
    head_epochs: int = Field(
        5, ge=0, le=MOST_EPOCHS, description="Epochs of the first phase, which trains the new head alone."
    )
    head_learning_rate: float = Field(
        1e-3, gt=0, le=1_000, description="Learning rate at the start of the first phase."
    )
    epochs: int = Field(
        15,
        ge=0,
        le=MOST_EPOCHS,
        description="Epochs of the second phase, which trains the head and the last blocks. If head_epochs is also 0, "
        "the backbone is not trained and keeps its head. It is tested, and pushed if it passes.",
    )
    blocks: int | None = Field(
        4,
        ge=0,
        le=1_000,
        description="Number of blocks, counted from the last, that the second phase trains. null: the whole model.",
    )
    learning_rate: float = Field(1e-5, gt=0, le=1_000, description="Learning rate at the start of the second phase.")
    weight_decay: float = Field(
        0.01, ge=0, le=1_000, description="Weight decay in the second phase; the first has none."
    )
    pixel_mean: tuple[_Mean, _Mean, _Mean] | None = Field(
        None,
        description="Mean of each channel with which the backbone normalised pixels from 0 to 255. Only a .weights.h5 "
        "file needs it. null: the value stored with the backbone.",
    )
    # A value below 1 would be meant for pixels from 0 to 1, and is rejected.
    pixel_std: tuple[_Spread, _Spread, _Spread] | None = Field(
        None,
        description="Standard deviation of each channel, as for pixel_mean. null: the value stored with the backbone.",
    )

    @property
    def trains(self) -> bool:
        """True if a phase has epochs; False if the backbone is accepted as it is."""
        return self.head_epochs + self.epochs > 0

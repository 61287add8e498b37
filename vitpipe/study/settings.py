"""Settings of a study: its architectures, training-set sizes, steps and seeds."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from components.errors import UsageError
from pipeline.settings import LayeredSettings, Source, flag_source, merge_sources
from trainer.framing import Resize
from trainer.settings import AugmentSettings, FinetuneSettings, PixelValue
from trainer.sizes import check_batch, check_stored_size

PRETRAINED = "vit-pretrained"  # not a registered architecture, because it takes its sizes from the backbone

_SHORT = AugmentSettings(randaugment_ops=0, mixup=0, cutmix=0, erase=0)  # for short trainings: only crops and flips

_Images = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Steps = Annotated[int, Field(ge=2, le=100_000_000)]
_Rate = Annotated[float, Field(gt=0, le=1_000)]


class StudySettings(LayeredSettings):
    """Settings of a study, common to all architectures. Learning rate and weight decay come with each architecture."""

    architectures: tuple[str, ...] = Field(min_length=1, description="Names of the registered architectures to train.")
    sizes: tuple[_Images | None, ...] = Field(
        min_length=1,
        description="Numbers of training images per class. null: the number of images of the rarest class.",
    )
    steps: tuple[_Steps, ...] = Field(description="Numbers of optimizer steps, one for each size.")
    seeds: int = Field(gt=0, le=1_000, description="How often each training is repeated, each time with another seed.")
    batch_size: int = Field(gt=0, le=2**20, description="Images of one optimizer step.")
    image_size: int = Field(32, gt=0, le=4096, description="Side of the models' square input, in pixels.")
    resize: Resize = Field(
        "stretch", description="Method that makes an image square: stretch, crop or pad, as in `model.resize`."
    )
    background: tuple[PixelValue, PixelValue, PixelValue] = Field(
        (255, 255, 255), description="Red, green and blue, from 0 to 255, of bars and behind transparent pixels."
    )
    warmup: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the steps in which the learning rate rises. It then falls along a cosine to 0.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label's probability that is spread evenly over all classes."
    )
    precision: str = Field(
        "float32",
        pattern="^(auto|float32|bfloat16|float16)$",
        description="Floating-point type of the computation. auto: the best that the device supports.",
    )
    augment: AugmentSettings = Field(_SHORT, description="Augmentation of the training images.")
    learning_rates: dict[str, _Rate] = Field(
        default_factory=dict, description="Learning rates by architecture, instead of the registered ones."
    )
    finetune: FinetuneSettings = Field(
        FinetuneSettings(),
        description="Fine-tuning of the pretrained ViT. Its phases share the steps in proportion to their epochs.",
    )
    split: Literal["val", "test"] = Field(
        "test", description="Split to evaluate on. Choose settings on val, so that test stays unseen."
    )

    @model_validator(mode="after")
    def check_sizes(self) -> Self:
        """Check that sizes, steps and architectures fit each other."""
        if len(self.steps) != len(self.sizes):
            raise ValueError(f"steps {list(self.steps)} must have one number for each of the sizes {list(self.sizes)}")
        if len(set(self.sizes)) < len(self.sizes) or len(set(self.architectures)) < len(self.architectures):
            raise ValueError("sizes and architectures must each be named once")
        if not self.finetune.head_epochs + self.finetune.epochs:
            raise ValueError("finetune.head_epochs and finetune.epochs are both 0: raise one of them")
        check_batch(self.batch_size)
        check_stored_size(self.augment.stored_size, self.image_size)
        return self


BUDGETS: dict[str, dict[str, Any]] = {
    # Two CPU cores.
    "small": {
        "architectures": ("vit-small", "resnet-20", "efficientnet-small"),
        "sizes": (50, 250, 1000),
        "steps": (150, 300, 600),
        "seeds": 3,
        "batch_size": 64,
        # Trains the whole model. The usual 1e-5 hardly changes so small a ViT, so a higher rate was chosen on val.
        "finetune": {"blocks": None, "learning_rate": 1e-3},
    },
    # A GPU. On CIFAR-10 the steps make 200 epochs at the largest size, and more at the others.
    "full": {
        "architectures": ("vit-tiny", "resnet-50", "efficientnet-b0"),
        "sizes": (50, 250, 1000, 2500, None),
        "steps": (4_000, 8_000, 16_000, 20_000, 35_000),
        "seeds": 5,
        "batch_size": 256,
        "label_smoothing": 0.1,
        "precision": "auto",
        "augment": AugmentSettings(mixing_epochs=1).model_dump(),
    },
}


def study_settings(budget: str, flags: list[str] | None = None) -> StudySettings:
    """Return the settings of a budget, changed by flags.

    Args:
        budget: a key of `BUDGETS`.
        flags: settings to change, each as `a.b=c`. A later flag overrides an earlier one.

    Raises:
        UsageError: if the budget does not exist.
        SettingsError: if a flag or a value is invalid.
    """
    if budget not in BUDGETS:
        raise UsageError(f"no budget {budget}: use one of {', '.join(BUDGETS)}")
    return merge_sources(StudySettings, [*map(flag_source, reversed(flags or [])), Source(BUDGETS[budget])])

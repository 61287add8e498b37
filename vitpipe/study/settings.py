"""What a study trains, and for how long."""

import copy
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from components.errors import UsageError
from pipeline.settings import explained, override
from trainer.settings import AugmentSettings, FinetuneSettings, SettingsGroup

PRETRAINED = "vit-pretrained"  # takes its sizes from the backbone, so it is no registered architecture

_SHORT = AugmentSettings(randaugment_ops=0, mixup=0, cutmix=0, erase=0)  # crops and flips

_Images = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Steps = Annotated[int, Field(ge=2, le=100_000_000)]
_Rate = Annotated[float, Field(gt=0, le=1_000)]


class StudySettings(SettingsGroup):
    """The same for every architecture, but for the learning rate and weight decay that it is registered with."""

    architectures: tuple[str, ...] = Field(min_length=1)
    sizes: tuple[_Images | None, ...] = Field(min_length=1)  # training images a class; null: all of the rarest class
    steps: tuple[_Steps, ...]  # of the optimizer, for each size
    seeds: int = Field(gt=0, le=1_000)
    batch_size: int = Field(gt=0, le=2**20)
    image_size: int = Field(32, gt=0, le=4096)  # pixels a side
    warmup: float = Field(0.1, ge=0, lt=1)  # share of the steps; the rate then falls along a cosine to 0
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    precision: str = Field("float32", pattern="^(auto|float32|bfloat16|float16)$")
    augment: AugmentSettings = _SHORT
    learning_rates: dict[str, _Rate] = Field(default_factory=dict)  # by architecture, over the registered
    finetune: FinetuneSettings = FinetuneSettings()  # of the pretrained ViT: its phases share the steps as its epochs
    split: Literal["val", "test"] = "test"  # to look at; on val settings are chosen, and test stays unseen

    @model_validator(mode="after")
    def can_be_run(self):
        if len(self.steps) != len(self.sizes):
            raise ValueError(f"steps {list(self.steps)} must have one number for each of the sizes {list(self.sizes)}")
        if len(set(self.sizes)) < len(self.sizes) or len(set(self.architectures)) < len(self.architectures):
            raise ValueError("sizes and architectures must each be named once")
        if self.batch_size % 2:
            raise ValueError(f"batch_size {self.batch_size} must be even, for Mixup and CutMix")
        return self


BUDGETS: dict[str, dict[str, Any]] = {
    # Two CPU cores.
    "small": {
        "architectures": ("vit-small", "resnet-20", "efficientnet-small"),
        "sizes": (50, 250, 1000),
        "steps": (150, 300, 600),
        "seeds": 3,
        "batch_size": 64,
        # All of the model, and faster than the article's 1e-5, which hardly moves so small a ViT: chosen on val.
        "finetune": {"blocks": None, "learning_rate": 1e-3},
    },
    # A GPU. Of CIFAR-10, 200 epochs at the largest size and more at the others.
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
    """Of a budget, with `a.b=c` flags over it. Raises UsageError if there is no such budget, and SettingsError."""
    if budget not in BUDGETS:
        raise UsageError(f"no budget {budget}: use one of {', '.join(BUDGETS)}")
    given = copy.deepcopy(BUDGETS[budget])
    for flag in flags or []:
        override(given, flag)
    try:
        return StudySettings.model_validate(given)
    except ValidationError as error:
        raise explained(error, StudySettings) from None

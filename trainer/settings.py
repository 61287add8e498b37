"""What a person may set about the model, its augmentation and its training."""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

SIZES = {
    "tiny": {"depth": 6, "width": 256, "heads": 4},
    "small": {"depth": 8, "width": 384, "heads": 6},
    "base": {"depth": 12, "width": 768, "heads": 12},
    "large": {"depth": 24, "width": 1024, "heads": 16},
    "huge": {"depth": 32, "width": 1280, "heads": 16},
}


MOST_PARAMETERS = 10_000_000_000  # of a model: 40 GB of weights, and four times as much with the optimizer's
MOST_TOKENS = 65_536  # of an image: 256 x 256 patches
MOST_EPOCHS = 100_000

_YEAR = 366 * 24 * 3600  # seconds
_PEBIBYTE = 2**20  # GiB


class Group(BaseModel):
    """A group of values: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SettingsGroup(Group):
    """A group of settings. No number may be infinite or NaN, which a comparison with a bound may not notice.

    Every number has a smallest and a largest value; a test checks each field for both.
    """

    model_config = ConfigDict(allow_inf_nan=False)


def path_characters(text: str) -> str:
    """Return the text of a path. Raises ValueError for a character that no file name or record can hold."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise ValueError(f"a path cannot contain the character U+{ord(character):04X}: remove it")
    return text


class ModelSettings(SettingsGroup):
    """The ViT. The defaults are ViT-Tiny for 32x32 images: 4,771,082 parameters with ten classes."""

    size: Literal["tiny", "small", "base", "large", "huge"] | None = None  # gives depth, width and heads
    image_size: int = Field(32, gt=0, le=4096)  # pixels a side; images of another size are resized to it
    patch_size: int = Field(4, gt=0, le=4096)
    depth: int = Field(SIZES["tiny"]["depth"], gt=0, le=1_000)
    width: int = Field(SIZES["tiny"]["width"], gt=0, le=65_536)
    heads: int = Field(SIZES["tiny"]["heads"], gt=0, le=1_024)
    mlp_ratio: int = Field(4, gt=0, le=64)
    dropout: float = Field(0.0, ge=0, lt=1)
    stochastic_depth: float = Field(0.0, ge=0, lt=1)  # of the last block; rises to it from 0 at the first
    head: Literal["cls", "mean", "seqpool"] = "cls"  # what the classifier reads
    conv_stem: bool = False  # 3x3 convolutions instead of one patch matrix
    mimetic: bool = False  # attention starts as trained ones look

    @model_validator(mode="before")
    @classmethod
    def fill_from_size(cls, given: Any) -> Any:
        size = given.get("size") if isinstance(given, dict) else None
        if not isinstance(size, str) or size not in SIZES:  # the field itself refuses anything else
            return given
        for key, value in SIZES[size].items():
            if given.get(key, value) != value:
                raise ValueError(
                    f"size {size} has {key} {value}, and {key} says {given[key]} (perhaps in the preset): "
                    "give depth, width and heads, or give size and none of them"
                )
        return {**given, **SIZES[size]}

    @model_validator(mode="after")
    def sizes_divide(self):
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.conv_stem and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(f"conv_stem halves the image until patch_size {self.patch_size}: make that a power of two")
        if self.conv_stem and self.width % (self.patch_size // 2):
            raise ValueError(f"conv_stem doubles its channels up to width {self.width}: make that a multiple of "
                             f"{self.patch_size // 2}")  # fmt: skip
        if self.mimetic and self.width % 4:
            raise ValueError(f"mimetic starts from sines and cosines: make width {self.width} a multiple of 4")
        return self

    @model_validator(mode="after")
    def can_be_built(self):
        tokens = (self.image_size // self.patch_size) ** 2
        if tokens > MOST_TOKENS:
            raise ValueError(
                f"image_size {self.image_size} makes {tokens:,} patches of patch_size {self.patch_size}, and at "
                f"most {MOST_TOKENS:,} are allowed: raise patch_size, or lower image_size"
            )
        in_blocks = self.depth * (4 + 2 * self.mlp_ratio) * self.width**2
        parameters = in_blocks + self.width * (3 * self.patch_size**2 + tokens)
        if parameters > MOST_PARAMETERS:
            raise ValueError(
                f"width {self.width}, depth {self.depth} and mlp_ratio {self.mlp_ratio} make about {parameters:,} "
                f"parameters, and at most {MOST_PARAMETERS:,} are allowed: lower one of them"
            )
        return self


class AugmentSettings(SettingsGroup):
    """What happens to a training image. The defaults are the recipe for 200 epochs; a short training wants less."""

    crop_padding: int = Field(4, ge=0, le=4096)  # pixels; 0 turns random crops off
    flip: bool = True  # wrong for digits, right for most photographs
    randaugment_ops: int = Field(2, ge=0, le=100)  # operations an image; 0 turns RandAugment off
    randaugment_magnitude: float = Field(9.0, ge=0, le=10)
    randaugment_std: float = Field(0.5, ge=0, le=10)  # of the magnitude
    randaugment_probability: float = Field(0.5, ge=0, le=1)  # of each operation
    mixup: float = Field(0.8, ge=0, le=1_000)  # alpha of Mixup's Beta distribution; 0 turns it off
    cutmix: float = Field(1.0, ge=0, le=1_000)  # alpha of CutMix'; with both on, each image takes one at even odds
    mixing_epochs: float = Field(0.6, ge=0, le=1)  # share of the epochs, from the first, in which images are mixed
    erase: float = Field(0.25, ge=0, le=1)  # probability of random erasing


class TrainingSettings(SettingsGroup):
    """The recipe. Of a fine-tuning, FinetuneSettings has the epochs, the learning rates and the weight decay."""

    epochs: int = Field(200, gt=0, le=MOST_EPOCHS)
    batch_size: int = Field(256, gt=0, le=2**20)  # images a step, over all devices
    accumulate: int = Field(1, gt=0, le=2**19)  # parts that a batch is computed in, one after the other, to save memory
    learning_rate: float = Field(1.4e-3, gt=0, le=1_000)  # peak; 1e-3 * sqrt(batch_size / 128)
    warmup_epochs: float = Field(10, ge=0, le=MOST_EPOCHS)
    final_learning_rate: float = Field(1e-5, ge=0, le=1_000)
    weight_decay: float = Field(0.05, ge=0, le=1_000)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    # Horizon of the weight average that is evaluated and exported; 0 for none.
    ema_epochs: float = Field(5.0, ge=0, le=MOST_EPOCHS)
    # Epochs without a better val accuracy before training stops; it never stops early if not set.
    patience: int | None = Field(None, gt=0, le=MOST_EPOCHS)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # of the compute; weights stay float32
    # A larger split is read from the local disk instead of from memory.
    memory_gib: float = Field(4.0, gt=0, le=_PEBIBYTE)
    warm_start: bool = False  # from the model serving now, where there is one
    # Least time between two checkpoints, which are written at an epoch's end.
    checkpoint_seconds: float = Field(60.0, ge=0, le=_YEAR)
    require_gpu: bool = False
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def warmup_ends(self):
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be less than epochs {self.epochs}")
        return self

    @model_validator(mode="after")
    def batch_divides(self):
        if self.batch_size % (2 * self.accumulate):
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of {2 * self.accumulate}: each of its "
                f"{self.accumulate} parts must hold whole pairs of images, for Mixup and CutMix"
            )
        return self


_Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
_Spread = Annotated[float, Field(ge=1, le=1e6)]


class FinetuneSettings(SettingsGroup):
    """From a pretrained backbone in two phases: the new head alone, then the top of the model with it.

    In each phase the learning rate falls along a cosine to 0. The model is as deep, wide and so on as the backbone.
    """

    # Source of the backbone, see `pipeline.backbone`; training starts from scratch if empty.
    source: Annotated[str, AfterValidator(path_characters)] = ""
    head_epochs: int = Field(5, ge=0, le=MOST_EPOCHS)
    head_learning_rate: float = Field(1e-3, gt=0, le=1_000)
    epochs: int = Field(15, ge=0, le=MOST_EPOCHS)  # of the second phase
    blocks: int | None = Field(4, ge=0, le=1_000)  # the last ones, which the second phase trains; null: the whole model
    learning_rate: float = Field(1e-5, gt=0, le=1_000)
    weight_decay: float = Field(0.01, ge=0, le=1_000)
    # What a `.weights.h5` file does not say: how its model normalised pixels of 0 to 255.
    pixel_mean: tuple[_Mean, _Mean, _Mean] | None = None
    # No less than 1, for pixels that were left as they are: 0.2 is that of pixels from 0 to 1.
    pixel_std: tuple[_Spread, _Spread, _Spread] | None = None

    @model_validator(mode="after")
    def trains(self):
        if not self.head_epochs + self.epochs:
            raise ValueError("head_epochs and epochs are both 0: nothing would be trained")
        return self

"""What a person may set about the model and its training."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Group(BaseModel):
    """A group of settings: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Group):
    """The ViT. The defaults are ViT-Tiny for 32x32 images: 4,771,082 parameters with ten classes."""

    image_size: int = Field(32, gt=0)  # pixels a side; images of another size are resized to it
    patch_size: int = Field(4, gt=0)
    depth: int = Field(6, gt=0)
    width: int = Field(256, gt=0)
    heads: int = Field(4, gt=0)
    mlp_ratio: int = Field(4, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def sizes_divide(self):
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class TrainingSettings(Group):
    """The recipe."""

    epochs: int = Field(200, gt=0)
    batch_size: int = Field(256, gt=0)
    learning_rate: float = Field(1.4e-3, gt=0)  # peak; 1e-3 * sqrt(batch_size / 128)
    warmup_epochs: float = Field(10, ge=0)
    final_learning_rate: float = Field(1e-5, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    crop_padding: int = Field(4, ge=0)  # pixels; 0 turns random crops off
    flip: bool = True  # wrong for digits, right for most photographs
    precision: Literal["float32", "bfloat16"] = "float32"  # of the compute; weights stay float32
    require_gpu: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def warmup_ends(self):
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be less than epochs {self.epochs}")
        return self

"""Choices by which an image of any size becomes the model's square of pixels. Imports neither Keras nor TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

Resize = Literal["stretch", "crop", "pad"]
FRAMING = {"image_size", "resize", "background"}  # settings of a model that `Framing.of` reads


@dataclass(frozen=True)
class Framing:
    """Choices that decide which pixels a model gets from an image.

    Args:
        size: Pixels on a side of the square.
        resize: Method that makes an image square. "stretch": it is squashed. "crop": the middle of its longer side is
            kept, as in the usual evaluation of ImageNet models. "pad": bars are added to its shorter side.
        background: Red, green and blue, from 0 to 255, of bars and behind transparent pixels.
    """

    size: int
    resize: Resize = "stretch"
    background: tuple[int, int, int] = (255, 255, 255)

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Self:
        """Return the framing that the settings of a model describe.

        Args:
            model: The settings by name, of which those in FRAMING are read. Models of earlier versions have only
                `image_size`, and get the defaults.
        """
        return cls(model["image_size"], model.get("resize", cls.resize), tuple(model.get("background", cls.background)))

    def at(self, size: int) -> Self:
        """Return the same framing at another size."""
        return replace(self, size=size)

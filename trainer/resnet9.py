"""A small residual CNN, the teacher of a distillation. It uses Keras 3 alone, so it runs on any Keras backend."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops


class ResNet9(keras.Model):
    """Nine-layer residual network after Page (2018, https://myrtle.ai/how-to-train-your-resnet).

    The input is pixels from 0 to 255, [N, image_size, image_size, 3], of an integer or float dtype. The output is
    logits, float32 [N, classes].

    Args:
        image_size: Pixels on a side of an image, a multiple of 8.
        classes: Number of classes.
        width: Channels of the first convolution; the last has eight times as many.
        mean: Mean of each channel, in units of 0 to 255, [3].
        std: Standard deviation of each channel, in units of 0 to 255, [3].
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        image_size: int = 32,
        classes: int = 10,
        width: int = 64,
        mean: Sequence[float] | np.ndarray = (127.5, 127.5, 127.5),
        std: Sequence[float] | np.ndarray = (127.5, 127.5, 127.5),
        **kwargs: object,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        policy = self.dtype_policy
        self.normalization = layers.Normalization(
            axis=-1, mean=[float(m) for m in mean], variance=[float(s) ** 2 for s in std], dtype="float32"
        )
        self.convolutions, self.norms = [], []
        # Channels of the eight convolutions, as multiples of `width`. The third and fourth are a residual branch, and
        # so are the last two.
        for number, factor in enumerate((1, 2, 2, 2, 4, 8, 8, 8)):
            name = "stem" if number == 0 else f"block_{number}"
            self.convolutions.append(
                layers.Conv2D(factor * width, 3, padding="same", use_bias=False, name=name, dtype=policy)
            )
            self.norms.append(layers.BatchNormalization(momentum=0.9, name=f"norm_{number}", dtype=policy))
        self.head = layers.Dense(classes, use_bias=False, kernel_initializer="zeros", name="head", dtype="float32")
        self.build((None, image_size, image_size, 3))

    def build(self, input_shape: tuple[int | None, int, int, int]) -> None:
        """Create the weights of all layers."""
        self.normalization.build(input_shape)
        shape = input_shape
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(shape)
            shape = (*shape[:-1], convolution.filters)
            norm.build(shape)
        self.head.build((None, shape[-1]))
        self.built = True

    def call(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Classify images.

        Args:
            images: Pixels from 0 to 255, [N, image_size, image_size, 3].
            training: Whether batch normalisation uses the statistics of the batch.

        Returns:
            Logits, float32 [N, classes].
        """

        def convolve(x: keras.KerasTensor, number: int) -> keras.KerasTensor:
            return ops.relu(self.norms[number](self.convolutions[number](x), training=training))

        def pool(x: keras.KerasTensor) -> keras.KerasTensor:
            return ops.max_pool(x, 2, 2)

        x = convolve(ops.cast(self.normalization(images), self.compute_dtype), 0)
        x = pool(convolve(x, 1))
        x = x + convolve(convolve(x, 2), 3)
        x = pool(convolve(x, 4))
        x = pool(convolve(x, 5))
        x = x + convolve(convolve(x, 6), 7)
        x = ops.cast(ops.max(x, axis=(1, 2)), "float32")
        return self.head(x)

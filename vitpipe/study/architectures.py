"""Architectures that a study compares. A call of `register` adds another one."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from keras.src.applications.efficientnet import EfficientNet  # keras.applications offers only the sizes B0 to B7

from trainer.settings import ModelSettings
from trainer.vit import ViT

# With Keras' default of 0.99, a seventh of the initial statistics would remain after 200 steps. He et al. use 0.9.
_MOMENTUM = 0.9

_EFFICIENTNET_STEM: dict[str, dict[str, Any]] = {
    "rescaling": {"scale": 1.0},
    "stem_conv_pad": {"padding": ((1, 1), (1, 1))},
    "stem_conv": {"strides": (1, 1)},
}

Moments = tuple[float, float, float]
Build = Callable[[int, int, Moments, Moments], keras.Model]


class Architecture(NamedTuple):
    """One architecture of a study.

    Attributes:
        title: the name in the legend of the chart.
        build: called with image size, number of classes, mean and standard deviation of each channel (of pixels from 0
            to 255). It returns a classifier of [N, size, size, 3] pixels to float32 logits [N, classes], in Keras'
            global dtype policy. It must be a function at module level, so that another process can import it.
        learning_rate: the highest learning rate of the schedule.
        weight_decay: the weight decay of AdamW.
    """

    title: str
    build: Build
    learning_rate: float
    weight_decay: float


ARCHITECTURES: dict[str, Architecture] = {}


def register(name: str, architecture: Architecture) -> None:
    """Add an architecture to those that a study can name.

    Args:
        name: the name in the setting `architectures`.
        architecture: the architecture.

    Raises:
        ValueError: if the name is already registered.
    """
    if name in ARCHITECTURES:
        raise ValueError(f"architecture {name} is already registered: choose another name")
    ARCHITECTURES[name] = architecture


def small_vit(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Build a ViT of four blocks, 64 wide. See `Architecture.build` for the arguments."""
    return _build_vit(ModelSettings(image_size=size, depth=4, width=64), classes, mean, std)


def tiny_vit(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Build a ViT-Tiny, the default of the model settings. See `Architecture.build` for the arguments."""
    return _build_vit(ModelSettings(image_size=size), classes, mean, std)


def _build_vit(model: ModelSettings, classes: int, mean: Moments, std: Moments) -> keras.Model:
    sizes = model.model_dump(exclude={"size"})
    return ViT(**sizes, classes=classes, mean=mean, std=std, dtype=keras.config.dtype_policy(), name="vit")


def resnet20(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Build the ResNet-20 for small images (He et al., 2015, https://arxiv.org/abs/1512.03385, section 4.2).

    One thing differs from the paper: where a block halves the image, its shortcut is a 1x1 convolution, not a
    subsampling without parameters. See `Architecture.build` for the arguments.
    """
    inputs = keras.Input((size, size, 3))
    x = layers.ReLU()(_convolve(_normalize(inputs, mean, std), 16, 3))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(_convolve(x, filters, 3, stride))
            y = _convolve(y, filters, 3)
            shortcut = _convolve(x, filters, 1, stride) if stride > 1 else x
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    return keras.Model(inputs, _logits(x, classes), name="resnet20")


def resnet50(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Build Keras' ResNet-50 with a stem for small images: one 3x3 convolution of stride 1, and no pooling.

    See `Architecture.build` for the arguments.
    """
    stem: dict[str, dict[str, Any]] = {
        "conv1_pad": {"padding": ((1, 1), (1, 1))},
        "conv1_conv": {"kernel_size": (3, 3), "strides": (1, 1)},
        "pool1_pad": {"padding": ((0, 0), (0, 0))},
        "pool1_pool": {"pool_size": (1, 1), "strides": (1, 1)},
    }
    return _adapt_application(keras.applications.ResNet50, stem, size, classes, mean, std)


def efficientnet_b0(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Build Keras' EfficientNet-B0 with a stem of stride 1, and our normalisation instead of its own rescaling.

    See `Architecture.build` for the arguments.
    """
    return _adapt_application(keras.applications.EfficientNetB0, _EFFICIENTNET_STEM, size, classes, mean, std)


def small_efficientnet(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Build an EfficientNet for CPUs, with half the width and about a third of the depth of `efficientnet_b0`.

    See `Architecture.build` for the arguments.
    """
    narrow = partial(EfficientNet, 0.5, 0.34, 224, weights_name="b0")
    return _adapt_application(narrow, _EFFICIENTNET_STEM, size, classes, mean, std, shift=True)


@keras.saving.register_keras_serializable("vitpipe")
class ShiftedDepthwise(layers.DepthwiseConv2D):
    """Depthwise convolution, computed as a sum of shifted images. XLA runs this several times faster on a CPU."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Convolve images [N, height, width, channels]."""
        (rows, columns), (stride, _) = self.kernel_size, self.strides
        x = inputs
        if self.padding == "same":  # the padding is right for a stride of 1, the only one used with "same"
            x = ops.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
        height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
        kernel = ops.cast(self.kernel, x.dtype)
        return sum(
            x[:, row : row + height : stride, column : column + width : stride] * kernel[row, column, :, 0]
            for row in range(rows)
            for column in range(columns)
        )


def _adapt_application(
    application: Callable[..., keras.Model],
    changes: dict[str, dict[str, Any]],
    size: int,
    classes: int,
    mean: Moments,
    std: Moments,
    shift: bool = False,
) -> keras.Model:
    """Build a classifier from a model of `keras.applications` without weights.

    Args:
        application: the function that builds the model.
        changes: arguments to change, by the name of the layer.
        size: side of the images, in pixels.
        classes: number of classes.
        mean: mean of each channel.
        std: standard deviation of each channel.
        shift: use `ShiftedDepthwise` for the depthwise convolutions.
    """
    keras.backend.clear_session()  # else Keras would number layer names such as `rescaling`
    config = application(weights=None, include_top=False, input_shape=(size, size, 3)).get_config()
    missing = set(changes)
    for layer in config["layers"]:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["momentum"] = _MOMENTUM
        if shift and layer["class_name"] == "DepthwiseConv2D":
            layer |= {"module": None, "class_name": "ShiftedDepthwise", "registered_name": "vitpipe>ShiftedDepthwise"}
        if layer["config"]["name"] in changes:
            layer["config"].update(changes[layer["config"]["name"]])
            missing.remove(layer["config"]["name"])
    if missing:
        raise ValueError(f"the model of Keras {keras.__version__} has no layers {', '.join(sorted(missing))}")
    backbone = keras.Model.from_config(config)
    inputs = keras.Input((size, size, 3))
    return keras.Model(inputs, _logits(backbone(_normalize(inputs, mean, std)), classes), name=backbone.name)


def _normalize(pixels: keras.KerasTensor, mean: Moments, std: Moments) -> keras.KerasTensor:
    return layers.Normalization(mean=mean, variance=np.square(std))(pixels)


def _convolve(x: keras.KerasTensor, filters: int, kernel: int, stride: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=_MOMENTUM)(x)


def _logits(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    return layers.Dense(classes, dtype="float32")(layers.GlobalAveragePooling2D()(features))


# The learning rates are for AdamW with a warmup and a cosine schedule. For the small budget, several rates, each twice
# the one before, were compared on the val split, with two seeds and 250 images of each of five CIFAR-10 classes. The
# best rate was chosen; at least its half and its double were among the others.
register("vit-small", Architecture("ViT, 4 blocks 64 wide", small_vit, 1.5e-3, 0.05))
register("resnet-20", Architecture("ResNet-20", resnet20, 4e-3, 0.05))
register("efficientnet-small", Architecture("EfficientNet, small", small_efficientnet, 4e-3, 0.05))
# The full budget is not tuned: it uses the rate of the preset cifar10, and AdamW's default in Keras.
register("vit-tiny", Architecture("ViT-Tiny", tiny_vit, 5e-4, 0.05))
register("resnet-50", Architecture("ResNet-50", resnet50, 1e-3, 0.05))
register("efficientnet-b0", Architecture("EfficientNet-B0", efficientnet_b0, 1e-3, 0.05))

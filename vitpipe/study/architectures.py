"""The architectures that a study compares. A call of `register` adds one."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from keras.src.applications.efficientnet import EfficientNet  # keras.applications has only its given sizes

from trainer.settings import ModelSettings
from trainer.vit import ViT

# Keras' 0.99 would still hold a seventh of the initial statistics after 200 steps; He et al. and others train at 0.9.
_MOMENTUM = 0.9

_EFFICIENTNET_STEM: dict[str, dict[str, Any]] = {
    "rescaling": {"scale": 1.0},
    "stem_conv_pad": {"padding": ((1, 1), (1, 1))},
    "stem_conv": {"strides": (1, 1)},
}

Moments = tuple[float, float, float]
Build = Callable[[int, int, Moments, Moments], keras.Model]


class Architecture(NamedTuple):
    """One line of the chart.

    build: of image size, classes, mean and std (of pixels 0 to 255) makes a classifier, [N, size, size, 3] pixels to
    float32 logits, in Keras' global dtype policy. It must be a function of a module, so that another process finds it.
    """

    title: str
    build: Build
    learning_rate: float
    weight_decay: float


ARCHITECTURES: dict[str, Architecture] = {}


def register(name: str, architecture: Architecture) -> None:
    """Raises ValueError for a name that is taken."""
    if name in ARCHITECTURES:
        raise ValueError(f"there is an architecture {name} already: give this one another name")
    ARCHITECTURES[name] = architecture


def small_vit(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    return _vit(ModelSettings(image_size=size, depth=4, width=64), classes, mean, std)


def tiny_vit(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    return _vit(ModelSettings(image_size=size), classes, mean, std)


def _vit(model: ModelSettings, classes: int, mean: Moments, std: Moments) -> keras.Model:
    sizes = model.model_dump(exclude={"size"})
    return ViT(**sizes, classes=classes, mean=mean, std=std, dtype=keras.config.dtype_policy(), name="vit")


def resnet20(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """ResNet-20 for small images (He et al., 2015, https://arxiv.org/abs/1512.03385, section 4.2).

    Where a block halves the image its shortcut is a 1x1 convolution; the paper's has no parameters there.
    """
    inputs = keras.Input((size, size, 3))
    x = layers.ReLU()(_convolution(_normalised(inputs, mean, std), 16, 3))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(_convolution(x, filters, 3, stride))
            y = _convolution(y, filters, 3)
            shortcut = _convolution(x, filters, 1, stride) if stride > 1 else x
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    return keras.Model(inputs, _logits(x, classes), name="resnet20")


def resnet50(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Keras' ResNet-50 whose stem is one 3x3 convolution of stride 1 without pooling: small images stay as they are."""
    stem: dict[str, dict[str, Any]] = {
        "conv1_pad": {"padding": ((1, 1), (1, 1))},
        "conv1_conv": {"kernel_size": (3, 3), "strides": (1, 1)},
        "pool1_pad": {"padding": ((0, 0), (0, 0))},
        "pool1_pool": {"pool_size": (1, 1), "strides": (1, 1)},
    }
    return _fitted(keras.applications.ResNet50, stem, size, classes, mean, std)


def efficientnet_b0(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """Keras' EfficientNet-B0 with a stem of stride 1. Its own rescaling is off: our normalisation takes its place."""
    return _fitted(keras.applications.EfficientNetB0, _EFFICIENTNET_STEM, size, classes, mean, std)


def small_efficientnet(size: int, classes: int, mean: Moments, std: Moments) -> keras.Model:
    """EfficientNet of half B0's width and about a third of its depth, for a CPU; otherwise as `efficientnet_b0`."""
    narrow = partial(EfficientNet, 0.5, 0.34, 224, weights_name="b0")
    return _fitted(narrow, _EFFICIENTNET_STEM, size, classes, mean, std, shift=True)


@keras.saving.register_keras_serializable("vitpipe")
class ShiftedDepthwise(layers.DepthwiseConv2D):
    """A depthwise convolution as a sum of shifted images: on a CPU, XLA is several times faster at that."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        (rows, columns), (stride, _) = self.kernel_size, self.strides
        x = inputs
        if self.padding == "same":  # of stride 1
            x = ops.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
        height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
        kernel = ops.cast(self.kernel, x.dtype)
        return sum(
            x[:, row : row + height : stride, column : column + width : stride] * kernel[row, column, :, 0]
            for row in range(rows)
            for column in range(columns)
        )


def _fitted(
    application: Callable[..., keras.Model],
    changes: dict[str, dict[str, Any]],
    size: int,
    classes: int,
    mean: Moments,
    std: Moments,
    shift: bool = False,
) -> keras.Model:
    """A model of `keras.applications` without weights, with other arguments for some of its layers."""
    keras.backend.clear_session()  # layer names such as `rescaling` count up otherwise
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
        raise ValueError(f"this Keras' model has no layers {', '.join(sorted(missing))}")
    backbone = keras.Model.from_config(config)
    inputs = keras.Input((size, size, 3))
    return keras.Model(inputs, _logits(backbone(_normalised(inputs, mean, std)), classes), name=backbone.name)


def _normalised(pixels: keras.KerasTensor, mean: Moments, std: Moments) -> keras.KerasTensor:
    return layers.Normalization(mean=mean, variance=np.square(std))(pixels)


def _convolution(x: keras.KerasTensor, filters: int, kernel: int, stride: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=_MOMENTUM)(x)


def _logits(features: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    return layers.Dense(classes, dtype="float32")(layers.GlobalAveragePooling2D()(features))


# The learning rates are for AdamW with a warmup and a cosine. Those of the small budget are the best on val of a ladder
# of doublings, from half to twice at least, at 250 images a class of five CIFAR-10 classes and two seeds.
register("vit-small", Architecture("ViT, 4 blocks 64 wide", small_vit, 1.5e-3, 0.05))
register("resnet-20", Architecture("ResNet-20", resnet20, 4e-3, 0.05))
register("efficientnet-small", Architecture("EfficientNet, small", small_efficientnet, 4e-3, 0.05))
# Those of the full budget are not tuned: the rate of the preset cifar10, and AdamW's default in Keras.
register("vit-tiny", Architecture("ViT-Tiny", tiny_vit, 1.4e-3, 0.05))
register("resnet-50", Architecture("ResNet-50", resnet50, 1e-3, 0.05))
register("efficientnet-b0", Architecture("EfficientNet-B0", efficientnet_b0, 1e-3, 0.05))

"""A model that can be explained: a pushed SavedModel, or the Keras model of a training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.errors import DataRefused, UsageError
from components.model.serving_folder import RECORD, read_record
from trainer.explain import layout
from trainer.preprocessing import decode_batch
from trainer.saved_model import open_saved_model
from trainer.serving import KERAS_MODEL, read_vit
from trainer.vit import ViT

_IMAGES = 32  # a call: attention of ViT-Tiny takes 0.4 MB an image


@dataclass(frozen=True)
class Explanation:
    """Of the images of a call that decode. `attention` and its tokens: see `trainer.explain`."""

    valid: np.ndarray  # bool [N], of all that were given
    pixels: np.ndarray  # uint8 [valid, size, size, 3], as the model sees them
    probabilities: np.ndarray  # float32 [valid, classes]
    attention: np.ndarray  # float32 [valid, depth, heads, tokens, tokens]


@dataclass(frozen=True)
class Model:
    """What is asked of either kind: its sizes, its class names, and two functions."""

    path: Path
    size: int  # pixels a side
    patch_size: float  # pixels a side
    has_cls: bool
    classes: list[str]  # in index order
    vit: ViT | None  # None where a SavedModel comes without
    answer: Callable[[np.ndarray], np.ndarray]  # uint8 [N, size, size, 3] to probabilities float32 [N, classes]
    explain: Callable[[Sequence[bytes]], Explanation]  # PNG or JPEG files


def open_model(path: Path, names: Sequence[str] | None = None) -> Model:
    """The model of a SavedModel folder or `.keras` file, as `vitpipe.inputs.model` gives it.

    names: of the classes, where the model does not know them; their numbers stand in for them otherwise.
    Raises DataRefused where it does not load or cannot be explained, UsageError for names that are too many or few.
    """
    return _of_keras(path, names) if path.is_file() else _of_saved_model(path, names)


def _of_saved_model(folder: Path, names: Sequence[str] | None) -> Model:
    try:
        loaded = open_saved_model(folder, serving_images="images", explain="image_bytes")
        images, explain = (loaded.signatures[name] for name in ("serving_images", "explain"))
        size = images.structured_input_signature[1]["images"].shape[1]
        classes = images.structured_outputs["probabilities"].shape[-1]
        tokens = explain.structured_outputs["attention"].shape[-1]
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # signatures with other inputs or outputs
        raise DataRefused(
            f"{folder} cannot be explained ({error}): push or restore it again, or name another folder with --model"
        ) from None

    def explained(encoded: tf.Tensor, _: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        answer = loaded.signatures["explain"](image_bytes=encoded)
        return answer["probabilities"].numpy(), answer["attention"].numpy()

    if (folder / RECORD).is_file():
        names = read_record(folder).classes
    file = folder / KERAS_MODEL
    vit = _load(file) if file.is_file() else None
    return _model(
        folder,
        size,
        tokens,
        classes,
        names,
        vit,
        lambda batch: loaded.signatures["serving_images"](images=tf.constant(batch))["probabilities"].numpy(),
        explained,
    )


def _of_keras(file: Path, names: Sequence[str] | None) -> Model:
    vit = _load(file)
    tokens = vit.tokens.positions.shape[1]

    @tf.function(reduce_retracing=True)
    def answer(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(vit(images, training=False))

    @tf.function(reduce_retracing=True)
    def explain(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, attention = vit.explain(images)
        return tf.nn.softmax(logits), attention

    def explained(_: tf.Tensor, pixels: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        probabilities, attention = explain(pixels)
        return probabilities.numpy(), attention.numpy()

    return _model(
        file,
        vit.config["image_size"],
        tokens,
        vit.config["classes"],
        names,
        vit,
        lambda batch: answer(tf.constant(batch)).numpy(),
        explained,
    )


def _model(
    path: Path,
    size: int,
    tokens: int,
    classes: int,
    names: Sequence[str] | None,
    vit: ViT | None,
    answer: Callable[[np.ndarray], np.ndarray],
    explained: Callable[[tf.Tensor, tf.Tensor], tuple[np.ndarray, np.ndarray]],
) -> Model:
    try:
        grid, has_cls = layout(tokens)
    except ValueError as error:
        raise DataRefused(f"{path}: {error}") from None
    if names is not None and len(names) != classes:
        raise UsageError(f"{path} has {classes} classes and the data {len(names)}: name its own data with --data")

    def explain(encoded: Sequence[bytes]) -> Explanation:
        parts = []
        for start in range(0, len(encoded), _IMAGES):
            batch = tf.constant(list(encoded[start : start + _IMAGES]), tf.string)
            pixels, valid = (of.numpy() for of in decode_batch(batch, size))
            probabilities, attention = explained(batch, tf.constant(pixels))
            parts.append((valid, pixels[valid], probabilities[valid], attention[valid]))
        return Explanation(*map(np.concatenate, zip(*parts, strict=True)))

    named = list(names) if names is not None else [str(number) for number in range(classes)]
    return Model(path, size, size / grid, has_cls, named, vit, answer, explain)


def _load(file: Path) -> ViT:
    try:
        return read_vit(file)
    except ValueError as error:
        raise DataRefused(str(error)) from None

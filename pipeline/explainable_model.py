"""Loading of a model whose attention can be shown: a pushed SavedModel, or the Keras model of a training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.errors import DataRefused, UsageError
from components.model.serving_folder import RECORD, read_record
from trainer.explain import layout
from trainer.framing import Framing
from trainer.preprocessing import decode_batch
from trainer.saved_model import open_saved_model
from trainer.serving import KERAS_MODEL, read_vit
from trainer.vit import ViT

_IMAGES = 32  # images of one call; the attention of ViT-Tiny takes 0.4 MB for each


@dataclass(frozen=True)
class Explanation:
    """Answers and attention for the images of one call.

    Images that do not decode appear in `valid` only. `trainer.explain` describes the tokens of `attention`.
    """

    valid: np.ndarray  # bool [N], True for each image that decodes
    pixels: np.ndarray  # uint8 [valid, size, size, 3], as the model sees them
    probabilities: np.ndarray  # float32 [valid, classes]
    attention: np.ndarray  # float32 [valid, depth, heads, tokens, tokens]


@dataclass(frozen=True)
class Model:
    """A loaded model of either kind: its sizes, its class names, and functions that call it."""

    path: Path
    size: int  # side of an image, in pixels
    patch_size: float  # side of a patch, in pixels
    has_cls: bool
    classes: list[str]  # in index order
    vit: ViT | None  # None for a SavedModel without a Keras model beside it
    answer: Callable[[np.ndarray], np.ndarray]  # uint8 [N, size, size, 3] to probabilities float32 [N, classes]
    explain: Callable[[Sequence[bytes]], Explanation]  # from PNG or JPEG files


def open_model(path: Path, names: Sequence[str] | None = None) -> Model:
    """Load a model.

    Args:
        path: folder of a SavedModel, or a `.keras` file, as `vitpipe.inputs.find_model` returns it.
        names: class names in index order, for a model that does not record them. Without names, the indices are used.

    Raises:
        DataRefused: if the model does not load, or lacks the signatures that explain it.
        UsageError: if the number of names is not the number of classes.
    """
    return _open_keras(path, names) if path.is_file() else _open_saved_model_folder(path, names)


def _open_saved_model_folder(folder: Path, names: Sequence[str] | None) -> Model:
    try:
        saved_model = open_saved_model(folder, serving_images="images", explain="image_bytes")
        images, explain = (saved_model.signatures[name] for name in ("serving_images", "explain"))
        size = images.structured_input_signature[1]["images"].shape[1]
        classes = images.structured_outputs["probabilities"].shape[-1]
        tokens = explain.structured_outputs["attention"].shape[-1]
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # signatures with other inputs or outputs
        raise DataRefused(
            f"{folder} cannot be explained ({error}): push or restore it again, or name another folder with --model"
        ) from None

    def explain_batch(encoded: tf.Tensor, _: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        answer = saved_model.signatures["explain"](image_bytes=encoded)
        return answer["probabilities"].numpy(), answer["attention"].numpy()

    if (folder / RECORD).is_file():
        names = read_record(folder).classes
    file = folder / KERAS_MODEL
    vit = _load(file) if file.is_file() else None
    return _model(
        folder,
        Framing.of(vit.config) if vit else Framing(size),
        tokens,
        classes,
        names,
        vit,
        lambda batch: saved_model.signatures["serving_images"](images=tf.constant(batch))["probabilities"].numpy(),
        explain_batch,
    )


def _open_keras(file: Path, names: Sequence[str] | None) -> Model:
    vit = _load(file)
    tokens = vit.tokens.positions.shape[1]

    @tf.function(reduce_retracing=True)
    def answer(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(vit.answer(images))

    @tf.function(reduce_retracing=True)
    def explain(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, attention = vit.explain(images)
        return tf.nn.softmax(logits), attention

    def explain_batch(_: tf.Tensor, pixels: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        probabilities, attention = explain(pixels)
        return probabilities.numpy(), attention.numpy()

    return _model(
        file,
        Framing.of(vit.config),
        tokens,
        vit.config["classes"],
        names,
        vit,
        lambda batch: answer(tf.constant(batch)).numpy(),
        explain_batch,
    )


def _model(
    path: Path,
    framing: Framing,
    tokens: int,
    classes: int,
    names: Sequence[str] | None,
    vit: ViT | None,
    answer: Callable[[np.ndarray], np.ndarray],
    explain_batch: Callable[[tf.Tensor, tf.Tensor], tuple[np.ndarray, np.ndarray]],
) -> Model:
    try:
        grid, has_cls = layout(tokens)
    except ValueError as error:
        raise DataRefused(f"{path}: {error}") from None
    if names is not None and len(names) != classes:
        raise UsageError(
            f"{path} has {classes} classes and the data has {len(names)}: name the data of the model with --data"
        )

    def explain(encoded: Sequence[bytes]) -> Explanation:
        parts = []
        for start in range(0, len(encoded), _IMAGES):
            batch = tf.constant(list(encoded[start : start + _IMAGES]), tf.string)
            pixels, valid = (tensor.numpy() for tensor in decode_batch(batch, framing))
            probabilities, attention = explain_batch(batch, tf.constant(pixels))
            parts.append((valid, pixels[valid], probabilities[valid], attention[valid]))
        return Explanation(*map(np.concatenate, zip(*parts, strict=True)))

    class_names = list(names) if names is not None else [str(number) for number in range(classes)]
    return Model(path, framing.size, framing.size / grid, has_cls, class_names, vit, answer, explain)


def _load(file: Path) -> ViT:
    try:
        return read_vit(file)
    except ValueError as error:
        raise DataRefused(str(error)) from None

"""Conversion of a SavedModel to LiteRT (TensorFlow Lite), and a runner for the converted model.

Both use TensorFlow's own converter and interpreter, which belong to the locked TensorFlow. The package `ai-edge-litert`
has the same interpreter, but would add 58 MB to every installation.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.saved_model import open_saved_model

FILE = "model.tflite"


def convert(folder: str | Path, calibration: Iterable[np.ndarray] | None = None) -> bytes:
    """Convert the signature `serving_images` of a SavedModel, for one image at a time.

    Args:
        folder: Folder of the SavedModel.
        calibration: Images, uint8 [size, size, 3] each, from which the ranges of int8 activations are measured. Weights
            and activations are then int8, except where LiteRT has no such operation. None: everything stays float32.

    Returns:
        A LiteRT model with the input `images`, uint8 [1, size, size, 3], and the output `probabilities`, float32
        [1, classes]. LiteRT has no operations for strings, so it returns no names of classes.

    Raises:
        ValueError: If the SavedModel does not load, or cannot be converted.
    """
    model = open_saved_model(folder, serving_images="images")
    signature = model.signatures["serving_images"]
    _, size, _, channels = signature.structured_input_signature[1]["images"].shape

    @tf.function(input_signature=[tf.TensorSpec([1, size, size, channels], tf.uint8, name="images")])
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": signature(images=images)["probabilities"]}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()], model)
    if calibration is not None:

        def requests() -> Iterator[dict[str, np.ndarray]]:
            return ({"images": image[None]} for image in calibration)

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = requests
    try:
        with _without_advice():
            converted: bytes = converter.convert()
    except Exception as error:  # the converter raises many types, according to the operation that it does not know
        raise ValueError(
            f"{folder} cannot be converted to LiteRT: {first_line(error)}. Serve the SavedModel itself, or train a "
            "model with other settings of `model`"
        ) from error
    return converted


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's type if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class LiteRTModel:
    """A LiteRT model that `convert` made, loaded to answer one image at a time.

    Args:
        content: The model.
        threads: Number of threads that it uses.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        with _without_advice():
            self._interpreter = tf.lite.Interpreter(model_content=content, num_threads=threads)
        self._runner = self._interpreter.get_signature_runner()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the probabilities of an image.

        Args:
            image: uint8 [size, size, 3].

        Returns:
            float32 [classes].
        """
        probabilities: np.ndarray = self._runner(images=image[None])["probabilities"][0]
        return probabilities


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Hide the advice to use `ai-edge-litert`, because a later TensorFlow will no longer have the interpreter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        yield

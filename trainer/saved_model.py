"""Loading of a SavedModel. Imports TensorFlow, but neither Keras nor the model's code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import tensorflow as tf


class SavedModel(Protocol):
    """A loaded SavedModel. Hold it while its signatures are called: they do not keep the weights in memory."""

    signatures: Mapping[str, tf.types.experimental.ConcreteFunction]


def open_saved_model(folder: str | Path, **signatures: str) -> SavedModel:
    """Load a SavedModel.

    Args:
        folder: Folder of the SavedModel.
        **signatures: Signatures that the model must have, each with the name of an input that it must have.

    Returns:
        The model.

    Raises:
        ValueError: If the model does not load, or lacks a signature or an input.
    """
    try:
        model: SavedModel = tf.saved_model.load(str(folder))
        for signature, input_name in signatures.items():
            model.signatures[signature].structured_input_signature[1][input_name]
    except Exception as error:  # TensorFlow raises many types, according to what is broken
        names = f"signature{'s' * (len(signatures) > 1)} {' and '.join(signatures)}"
        raise ValueError(f"{folder} does not load as a model with the {names} ({type(error).__name__})") from error
    return model

"""Loading of a SavedModel. Imports TensorFlow, and neither Keras nor the model's code."""

from pathlib import Path
from typing import Any

import tensorflow as tf


def open_saved_model(folder: str | Path, **signatures: str) -> Any:
    """Load a SavedModel.

    Args:
        folder: of the SavedModel.
        signatures: names of signatures that it must have, each with the name of its input.

    Returns:
        The model. Hold it while its signatures are called: a signature alone does not keep the weights alive.

    Raises:
        ValueError: if it does not load, or lacks a signature or its input.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
        for name, given in signatures.items():
            loaded.signatures[name].structured_input_signature[1][given]
    except Exception as error:  # TensorFlow has a class of errors for each thing that is broken
        names = f"signature{'s' * (len(signatures) > 1)} {' and '.join(signatures)}"
        raise ValueError(f"{folder} does not load as a model with the {names} ({type(error).__name__})") from error
    return loaded

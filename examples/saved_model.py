"""Classify images with a pushed model. Needs TensorFlow alone: not vitpipe, TFX or Keras.

python examples/saved_model.py runs/sample/serving/1 IMAGE...

Use it only with models that you trust: a SavedModel can read and write files when it runs.
"""

import sys
from pathlib import Path

import tensorflow as tf


def main(folder: str, files: list[str]) -> None:
    """Print the class and the probability of each PNG or JPEG file."""
    model = tf.saved_model.load(folder)
    images = tf.constant([Path(file).read_bytes() for file in files])
    answer = model.signatures["serving_bytes"](image_bytes=images)
    for file, valid, name, probabilities in zip(
        files,
        answer["valid"].numpy(),
        answer["class"].numpy(),
        answer["probabilities"].numpy(),
        strict=True,
    ):
        print(file, f"{name.decode()} {probabilities.max():.3f}" if valid else "is not a PNG or JPEG image")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

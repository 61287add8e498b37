"""The pipeline: its graph, its runs and their results."""

import os

# Keras 3 must run on TensorFlow, even if the environment or ~/.keras/keras.json names another backend.
os.environ["KERAS_BACKEND"] = "tensorflow"
# TensorFlow then allocates GPU memory as needed instead of all at once. It reads this variable before the first step.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

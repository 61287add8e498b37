"""The pipeline: its graph, its runs and their results."""

import os

# Keras 3 runs on TensorFlow here, whatever the environment or ~/.keras/keras.json would choose.
os.environ["KERAS_BACKEND"] = "tensorflow"
# Take GPU memory only as it is needed. Said here, because once a step of the graph has run it is too late.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

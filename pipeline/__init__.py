"""What runs, in which order, and the `vitpipe` command."""

import os

# Keras 3 runs on TensorFlow here, whatever the environment or ~/.keras/keras.json would choose.
os.environ["KERAS_BACKEND"] = "tensorflow"

"""Logs of a model server, as TensorFlow Serving and other programs write them."""

import base64
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components.data.ingest import tfrecord


def json_line(content=None, answer=None, **values):
    """Return a line of a log. `content` is an encoded image, `answer` a row of probabilities."""
    row = values
    if content is not None:
        row = {"image_bytes": base64.b64encode(content).decode(), **row}
    if answer is not None:
        row = {"probabilities": [float(share) for share in answer], **row}
    return json.dumps(row) + "\n"


def prediction_log(images, probabilities, version=1, seconds=0, signature="image_bytes", names=()):
    """Return a serialized PredictionLog of one request, as TensorFlow Serving logs it.

    Args:
        images: encoded images, serialized examples, or an array of pixels.
        probabilities: float [N, classes].
        version: version of the model.
        seconds: time of the request since 1970; 0 for none.
        signature: name of the input.
        names: class names, in index order; empty to log no names.
    """
    log = prediction_log_pb2.PredictionLog()
    log.log_metadata.model_spec.name = "vit"
    log.log_metadata.model_spec.version.value = version
    log.log_metadata.timestamp_secs = seconds
    request, outputs = log.predict_log.request, log.predict_log.response.outputs
    request.inputs[signature].CopyFrom(tf.make_tensor_proto(images))
    probabilities = np.asarray(probabilities, np.float32)
    outputs["probabilities"].CopyFrom(tf.make_tensor_proto(probabilities))
    outputs["valid"].CopyFrom(tf.make_tensor_proto(probabilities.any(axis=1)))
    if names:
        chosen = [names[index] for index in probabilities.argmax(axis=1)]
        outputs["class"].CopyFrom(tf.make_tensor_proto(chosen))
    return log.SerializeToString()


def write_records(file: Path, records):
    """Write a TFRecord file."""
    file.write_bytes(b"".join(map(tfrecord.frame, records)))
    return file


def ask(model: Path, images, batch=64):
    """Return the probabilities of a SavedModel for encoded images, float32 [N, classes]."""
    signature = tf.saved_model.load(str(model)).signatures["serving_bytes"]
    parts = [
        signature(image_bytes=tf.constant(images[start : start + batch]))["probabilities"].numpy()
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts)

"""The SavedModel: raw bytes in, classes out, with TensorFlow alone."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.preprocessing import decode_batch, image_of
from trainer.vit import ViT

# Where the SavedModel convention keeps a user's own files; nothing that serves the model reads it.
KERAS_MODEL = "assets.extra/vit.keras"
WARMUP = "assets.extra/tf_serving_warmup_requests"  # where TensorFlow Serving looks for them


def export(model: ViT, class_names: list[str], size: int, path: str, warmup: np.ndarray | None = None) -> None:
    """Write `model` (uint8 images [N, size, size, 3] to logits) as a SavedModel with its serving signatures.

    serving_default  examples: string [N], serialized raw tf.Example (no label needed)
    serving_bytes    image_bytes: string [N], PNG or JPEG of any size
    serving_images   images: uint8 [N, size, size, 3]
    explain          image_bytes: string [N]

    Each answers with probabilities (float32 [N, classes]), label (int64 [N]), class (string [N]) and valid (bool [N]).
    A row that does not decode has valid false, probabilities 0, label -1 and an empty class. `explain` adds attention
    (float32 [N, depth, heads, tokens, tokens]; 0 in such a row).

    The Keras model goes along, for `load_vit`; and requests made of the images `warmup` (uint8 [n, size, size, 3]),
    which TensorFlow Serving answers before it reports the model available.
    """
    names = tf.constant([*class_names, ""])

    # Signatures share this one graph of the model: each traced anew would take seconds, and megabytes of the file.
    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])
    def logits_of(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    def answer(logits: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.where(valid[:, None], tf.nn.softmax(logits), 0.0)
        label = tf.where(valid, tf.argmax(probabilities, axis=-1), -1)
        # An invalid row takes the empty name that stands after the last class.
        name = tf.gather(names, tf.where(valid, label, len(class_names)))
        return {"probabilities": probabilities, "label": label, "class": name, "valid": valid}

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="images")])
    def serving_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(logits_of(images), tf.ones(tf.shape(images)[:1], tf.bool))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(image_bytes, size)
        return answer(logits_of(images), valid)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(examples, size, read=image_of)
        return answer(logits_of(images), valid)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def explain(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(image_bytes, size)
        logits, attention = model.explain(images)
        return answer(logits, valid) | {"attention": tf.where(valid[:, None, None, None, None], attention, 0.0)}

    served = tf.Module()
    served.variables_of_model = [weight.value for weight in model.weights]
    signatures = [serving_default, serving_bytes, serving_images, explain]
    tf.saved_model.save(served, path, signatures={signature.__name__: signature for signature in signatures})
    file = f"{path}/{KERAS_MODEL}"
    tf.io.gfile.makedirs(file.rpartition("/")[0])
    model.save(file)
    if warmup is not None:
        _write_warmup(warmup, f"{path}/{WARMUP}")


def class_names(signature: tf.types.experimental.ConcreteFunction) -> list[str]:
    """Return the class names, in index order, of a signature that `export` wrote; empty if it has none.

    They are a constant of its graph, followed by the empty name of rows that do not decode.
    """
    for constant in signature.captured_inputs:
        if constant.dtype == tf.string and constant.shape.rank == 1:
            return [name.decode() for name in constant.numpy()[:-1]]
    return []


def _write_warmup(images: np.ndarray, file: str) -> None:
    """For each signature that takes images one request with one image, and one with all of them."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    encoded = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    inputs = {"serving_bytes": ("image_bytes", encoded), "serving_images": ("images", images)}
    with tf.io.TFRecordWriter(file) as writer:
        for signature, (name, rows) in inputs.items():
            for some in (rows[:1], rows):
                request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(signature_name=signature))
                request.inputs[name].CopyFrom(tf.make_tensor_proto(some))
                log = prediction_log_pb2.PredictLog(request=request)
                writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def load_vit(path: str) -> ViT:
    """The Keras model of a SavedModel that `export` wrote, to explain it or to go on training from it.

    Raises FileNotFoundError when the SavedModel has none, and ValueError when it holds something else.
    """
    file = f"{path}/{KERAS_MODEL}"
    if not tf.io.gfile.exists(file):
        raise FileNotFoundError(
            f"{file} is missing, the Keras model beside the SavedModel: give a SavedModel that this pipeline's Trainer "
            "wrote, or train from scratch (training.warm_start=false)"
        )
    return read_vit(file)


def read_vit(file: str | Path) -> ViT:
    """The ViT in a `.keras` file. Raises ValueError when it cannot be read, or holds something else."""
    try:
        model = keras.models.load_model(file, compile=False)
    except Exception as error:  # whatever a broken archive, an unknown class or a changed one makes Keras raise
        what = str(error).partition(". ")[0]  # Keras goes on with the whole configuration
        raise ValueError(
            f"{file} cannot be read as a Keras model ({what}): name a whole one that this version wrote"
        ) from error
    if not isinstance(model, ViT):
        raise ValueError(f"{file} holds a {type(model).__name__}, not a ViT of this project: name another")
    return model

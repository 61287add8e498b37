"""Export of the SavedModel, which turns encoded images into classes and needs TensorFlow alone."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.framing import Framing
from trainer.preprocessing import decode_batch, read_image
from trainer.vit import ViT

# By convention `assets.extra` holds a SavedModel's additional files, which do not affect how it is served.
KERAS_MODEL = "assets.extra/vit.keras"
WARMUP = "assets.extra/tf_serving_warmup_requests"  # the path that TensorFlow Serving reads


def export(model: ViT, class_names: list[str], path: str, warmup: np.ndarray | None = None) -> None:
    """Write a ViT as a SavedModel.

    It has these signatures, each with one input:

    - `serving_default`: `examples`, string [N], serialized raw tf.Examples; a label is not needed.
    - `serving_bytes`: `image_bytes`, string [N], PNG or JPEG images of any size.
    - `serving_images`: `images`, uint8 [N, size, size, 3].
    - `explain`: `image_bytes`, string [N].

    Each returns `probabilities` (float32 [N, classes]), `label` (int64 [N]), `class` (string [N]) and `valid`
    (bool [N]). A row that does not decode has valid false, probabilities 0, label -1 and an empty class. `explain` also
    returns `attention` (float32 [N, depth, heads, tokens, tokens]), which is 0 in such a row.

    The Keras model is stored in the folder, too, for `load_vit`.

    Args:
        model: The ViT.
        class_names: Names of the classes, in index order.
        path: Folder to write.
        warmup: Images, uint8 [n, size, size, 3], from which to make the warm-up requests that TensorFlow Serving sends
            to the model before it reports it as available. None: no requests are stored.
    """
    names = tf.constant([*class_names, ""])
    framing = Framing.of(model.config)
    size = framing.size

    # The signatures share one graph of the model. A graph for each of them would take seconds and megabytes.
    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])
    def compute_logits(images: tf.Tensor) -> tf.Tensor:
        return model.answer(images)

    def answer(logits: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.where(valid[:, None], tf.nn.softmax(logits), 0.0)
        label = tf.where(valid, tf.argmax(probabilities, axis=-1), -1)
        # An invalid row gets the empty name after the last class.
        name = tf.gather(names, tf.where(valid, label, len(class_names)))
        return {"probabilities": probabilities, "label": label, "class": name, "valid": valid}

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="images")])
    def serving_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(compute_logits(images), tf.ones(tf.shape(images)[:1], tf.bool))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(image_bytes, framing)
        return answer(compute_logits(images), valid)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(examples, framing, read=read_image)
        return answer(compute_logits(images), valid)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def explain(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decode_batch(image_bytes, framing)
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
    """Return the class names, in index order, of a signature that `export` wrote; empty for any other signature.

    The graph of the signature contains them as a constant, followed by the empty name of rows that do not decode.
    """
    for constant in signature.captured_inputs:
        if constant.dtype == tf.string and constant.shape.rank == 1:
            return [name.decode() for name in constant.numpy()[:-1]]
    return []


def _write_warmup(images: np.ndarray, file: str) -> None:
    """Write two requests for each signature that takes images: one with the first image, one with all of them."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    encoded = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    inputs = {"serving_bytes": ("image_bytes", encoded), "serving_images": ("images", images)}
    with tf.io.TFRecordWriter(file) as writer:
        for signature, (name, rows) in inputs.items():
            for batch in (rows[:1], rows):
                request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(signature_name=signature))
                request.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
                log = prediction_log_pb2.PredictLog(request=request)
                writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def load_vit(path: str) -> ViT:
    """Load the Keras model of a SavedModel that `export` wrote, to explain it or to train from it.

    Raises:
        FileNotFoundError: If the SavedModel has no Keras model.
        ValueError: If the Keras model cannot be read, or is not a ViT of this project.
    """
    file = f"{path}/{KERAS_MODEL}"
    if not tf.io.gfile.exists(file):
        raise FileNotFoundError(
            f"{file} is missing, and with it the Keras model of the SavedModel. Use a SavedModel that this pipeline's "
            "Trainer wrote, or train from scratch (training.warm_start=false)"
        )
    return read_vit(file)


def read_vit(file: str | Path) -> ViT:
    """Load the ViT of a `.keras` file.

    Raises:
        ValueError: If the file cannot be read, or does not hold a ViT of this project.
    """
    try:
        model = keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras raises many types: broken archive, unknown class, changed class
        reason = str(error).partition(". ")[0]  # Keras adds the whole configuration
        raise ValueError(
            f"{file} cannot be read as a Keras model ({reason}): use an undamaged file that this version of vitpipe "
            "can read"
        ) from error
    if not isinstance(model, ViT):
        raise ValueError(f"{file} holds a {type(model).__name__}, not a ViT of this project: use another file")
    return model

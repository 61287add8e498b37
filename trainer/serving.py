"""The SavedModel: raw bytes in, classes out, with TensorFlow alone."""

import keras
import tensorflow as tf

from trainer.examples import IMAGE
from trainer.preprocessing import decode_batch


def export(model: keras.Model, class_names: list[str], size: int, path: str) -> None:
    """Write `model` (uint8 images [N, size, size, 3] to logits) as a SavedModel with its serving signatures.

    serving_default  examples: string [N], serialized raw tf.Example (no label needed)
    serving_bytes    image_bytes: string [N], PNG or JPEG of any size
    serving_images   images: uint8 [N, size, size, 3]

    Each answers with probabilities (float32 [N, classes]), label (int64 [N]), class (string [N]) and valid (bool [N]).
    A row that does not decode has valid false, probabilities 0, label -1 and an empty class.
    """
    names = tf.constant([*class_names, ""])

    def answer(images, valid):
        probabilities = tf.where(valid[:, None], tf.nn.softmax(model(images, training=False)), 0.0)
        label = tf.where(valid, tf.argmax(probabilities, axis=-1), -1)
        # An invalid row takes the empty name that stands after the last class.
        name = tf.gather(names, tf.where(valid, label, len(class_names)))
        return {"probabilities": probabilities, "label": label, "class": name, "valid": valid}

    def serving_images(images):
        return answer(images, tf.ones(tf.shape(images)[:1], tf.bool))

    def serving_bytes(image_bytes):
        return answer(*decode_batch(image_bytes, size))

    def serving_default(examples):
        # A record without an image is an image that does not decode, not an error for its whole batch.
        feature = tf.io.FixedLenFeature([], tf.string, default_value="")
        return serving_bytes(tf.io.parse_example(examples, {IMAGE: feature})[IMAGE])

    archive = keras.export.ExportArchive()
    archive.track(model)
    strings = tf.TensorSpec([None], tf.string)
    pixels = tf.TensorSpec([None, size, size, 3], tf.uint8, name="images")
    archive.add_endpoint("serving_default", serving_default, [tf.TensorSpec.from_spec(strings, name="examples")])
    archive.add_endpoint("serving_bytes", serving_bytes, [tf.TensorSpec.from_spec(strings, name="image_bytes")])
    archive.add_endpoint("serving_images", serving_images, [pixels])
    archive.write_out(path, verbose=False)

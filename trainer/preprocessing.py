"""How an encoded image becomes pixels. Training, evaluation and serving all go through `decode`."""

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import schema_inference

from trainer.examples import ID, IMAGE, LABEL

_MOMENTS_TYPE = "type.googleapis.com/tensorflow.TensorProto"


def decode(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """PNG or JPEG bytes (scalar string) to uint8 pixels [size, size, 3].

    An image of another size is resized with antialiasing. Raises InvalidArgumentError when the bytes do not decode.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def resized():
        pixels = tf.image.resize(image, (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
    return tf.ensure_shape(tf.cond(fits, lambda: image, resized), (size, size, 3))


def decode_batch(encoded: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Encoded images (string [N]) to pixels (uint8 [N, size, size, 3]) and whether each decoded (bool [N]).

    A row that does not decode is all zeros, and leaves the others alone.
    """
    count = tf.size(encoded, tf.int64)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
    decoded = rows.map(lambda row, image: (row, decode(image, size)), num_parallel_calls=tf.data.AUTOTUNE)
    # One more row, past the end, keeps the batch from being empty when nothing decodes.
    past_end = tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3), tf.uint8)))
    batch = decoded.ignore_errors().concatenate(past_end).batch(count + 1)
    index, pixels = batch.get_single_element()
    # Scattered as int32: TensorFlow has no uint8 scatter on every device.
    images = tf.scatter_nd(index[:, None], tf.cast(pixels, tf.int32), (count + 1, size, size, 3))[:-1]
    valid = tf.scatter_nd(index[:, None], tf.ones_like(index), (count + 1,))[:-1]
    return tf.cast(images, tf.uint8), tf.cast(valid, tf.bool)


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict) -> dict[str, tf.Tensor]:
    """Raw to transformed example: pixels as raw uint8 bytes, label, id.

    `custom_config["image_size"]` is the model's image size. The mean and standard deviation of the pixels, over the
    analysed split and per channel, are attached to the schema of the result; `read_moments` reads them.
    """
    size = custom_config["image_size"]

    def row(encoded):
        image = decode(encoded, size)
        # The pixels are the last field of a serialized tensor: cut off what stands before them.
        raw = tf.strings.substr(tf.io.serialize_tensor(image), -size * size * 3, size * size * 3)
        pixels = tf.cast(image, tf.float32)
        return raw, tf.reduce_mean(pixels, axis=(0, 1)), tf.reduce_mean(pixels**2, axis=(0, 1))

    raw, mean, mean_square = tf.map_fn(
        row,
        tf.reshape(inputs[IMAGE], [-1]),
        fn_output_signature=(
            tf.TensorSpec((), tf.string),
            tf.TensorSpec((3,), tf.float32),
            tf.TensorSpec((3,), tf.float32),
        ),
    )
    # Every image has as many pixels as the next, so the mean of their means is the mean of all pixels.
    overall_mean = tft.mean(mean, reduce_instance_dims=False)
    std = tf.sqrt(tft.mean(mean_square, reduce_instance_dims=False) - overall_mean**2)
    schema_inference.annotate(_MOMENTS_TYPE, tf.io.serialize_tensor(tf.stack([overall_mean, std])))
    return {IMAGE: raw, LABEL: tf.reshape(inputs[LABEL], [-1]), ID: tf.reshape(inputs[ID], [-1])}


def read_moments(transformed_schema: schema_pb2.Schema) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the pixels (0 to 255), each float32 [3], as Transform measured them."""
    for annotation in transformed_schema.annotation.extra_metadata:
        if annotation.type_url == _MOMENTS_TYPE:
            mean, std = tf.make_ndarray(tf.compat.v1.TensorProto.FromString(annotation.value))
            return mean, std
    raise ValueError("the transformed schema carries no pixel moments: run Transform again")

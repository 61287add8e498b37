"""ViT and training recipe of a published article, to compare this project with.

The article is "Deep Dive: Vision Transformer (ViT) in TensorFlow" by Wasil Zafar. Layers, sizes, initial values,
augmentation, optimizer and schedule are those of the article. These changes were needed to make it run:

- The CLS token and the positions are weights of a layer. The article captures them in Lambda layers, which would not
  train them.
- The label smoothing that the article announces is passed to a loss that supports it, with one-hot labels.
- `model.fit` is called. The article only prints its configuration.
- The sizes are arguments, and the schedule knows the actual number of steps.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

BATCH_SIZE = 128
PEAK_LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
WARMUP = 10 / 200  # of the steps


class Embedding(layers.Layer):
    """Layer that turns patches [N, patches, width] into tokens [N, patches + 1, width].

    It prepends the CLS token and adds positions.
    """

    def build(self, input_shape: tuple[int | None, int, int]) -> None:
        """Create the weights."""
        _, patches, width = input_shape
        self.cls = self.add_weight(name="cls", shape=(1, 1, width), initializer="zeros")
        self.positions = self.add_weight(
            name="pos_embed", shape=(1, patches + 1, width), initializer=keras.initializers.RandomNormal(stddev=0.02)
        )

    def call(self, patches: keras.KerasTensor) -> keras.KerasTensor:
        """Return the tokens."""
        cls = ops.broadcast_to(self.cls, (ops.shape(patches)[0], 1, patches.shape[-1]))
        return ops.concatenate([cls, patches], axis=1) + self.positions


def vit(
    classes: int = 10,
    image_size: int = 32,
    patch_size: int = 4,
    depth: int = 6,
    width: int = 256,
    heads: int = 4,
    dropout: float = 0.1,
) -> keras.Model:
    """Build the functional model.

    Args:
        classes: Number of classes.
        image_size: Pixels on a side of an image.
        patch_size: Pixels on a side of a patch.
        depth: Number of encoder blocks.
        width: Width of a token.
        heads: Number of attention heads of a block.
        dropout: Dropout rate.

    Returns:
        The model, from images, float32 [N, image_size, image_size, 3] from 0 to 1, to logits, float32 [N, classes].
    """
    images = layers.Input((image_size, image_size, 3))
    x = layers.Conv2D(width, patch_size, strides=patch_size, padding="valid")(images)
    x = Embedding()(layers.Reshape((-1, width))(x))
    x = layers.Dropout(dropout)(x)
    for _ in range(depth):
        norm = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.MultiHeadAttention(heads, key_dim=width // heads, dropout=dropout)(norm, norm)
        mlp = layers.LayerNormalization(epsilon=1e-6)(x)
        mlp = layers.Dropout(dropout)(layers.Dense(4 * width, activation="gelu")(mlp))
        x = x + layers.Dropout(dropout)(layers.Dense(width)(mlp))
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(images, layers.Dense(classes)(x[:, 0]))


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly from 0 in the first step, then falls along a cosine to 1e-5 of the peak."""

    def __init__(self, total_steps: int) -> None:
        self.warmup_steps = int(WARMUP * total_steps)
        self.cosine = keras.optimizers.schedules.CosineDecay(
            PEAK_LEARNING_RATE, decay_steps=total_steps - self.warmup_steps, alpha=1e-5
        )

    def __call__(self, step: keras.KerasTensor | int) -> keras.KerasTensor:
        """Return the learning rate at a step counted from 0."""
        step = ops.cast(step, "float32")
        rising = PEAK_LEARNING_RATE * step / max(self.warmup_steps, 1)
        falling = self.cosine(ops.maximum(step - self.warmup_steps, 0.0))
        return ops.where(step < self.warmup_steps, rising, falling)


def compile_recipe(model: keras.Model, total_steps: int) -> None:
    """Compile a model as the article does. It leaves `jit_compile` at "auto", so XLA is off on a CPU.

    Args:
        model: The model, which is changed.
        total_steps: Number of steps of the training.
    """
    model.compile(
        optimizer=keras.optimizers.AdamW(Schedule(total_steps), weight_decay=WEIGHT_DECAY),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
        metrics=["accuracy"],
    )


def training_batches(
    images: np.ndarray, labels: np.ndarray, classes: int, batch_size: int = BATCH_SIZE
) -> tf.data.Dataset:
    """Make the augmented batches of one epoch.

    Args:
        images: uint8 [N, size, size, 3].
        labels: int [N].
        classes: Number of classes.
        batch_size: Images of a batch.

    Returns:
        Batches of images, float32 from 0 to 1, and one-hot labels.
    """
    augmentation = keras.Sequential(
        [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]
    )
    scaled = images.astype("float32") / 255.0
    one_hot = keras.utils.to_categorical(labels, classes)
    return (
        tf.data.Dataset.from_tensor_slices((scaled, one_hot))
        .shuffle(10_000)
        .batch(batch_size)
        .map(lambda x, y: (augmentation(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def test_batches(images: np.ndarray, labels: np.ndarray, classes: int, batch_size: int = BATCH_SIZE) -> tf.data.Dataset:
    """Make batches without shuffling and augmentation, with the arguments and the result of `training_batches`."""
    one_hot = keras.utils.to_categorical(labels, classes)
    return tf.data.Dataset.from_tensor_slices((images.astype("float32") / 255.0, one_hot)).batch(batch_size)

"""The article's own ViT and training recipe, repaired only so far that it runs: what ours is compared with.

The article is "Deep Dive: Vision Transformer (ViT) in TensorFlow" by Wasil Zafar. Layers, sizes, initial values,
augmentation, optimizer and schedule are its own. Repaired:

- the CLS token and the positions are weights of a layer (captured by Lambdas, they would not be trained);
- the label smoothing that it announces is given to a loss that takes one, on one-hot labels;
- `model.fit` is called (the article prints its configuration and stops there);
- the sizes are arguments, and the schedule is given the number of steps that happen.
"""

import keras
import tensorflow as tf
from keras import layers, ops

BATCH_SIZE = 128
PEAK_LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
WARMUP = 10 / 200  # of the steps


class Embedding(layers.Layer):
    """Patches [N, patches, width] to tokens [N, patches + 1, width]: the CLS token before them, positions added."""

    def build(self, input_shape):
        _, patches, width = input_shape
        self.cls = self.add_weight(name="cls", shape=(1, 1, width), initializer="zeros")
        self.positions = self.add_weight(
            name="pos_embed", shape=(1, patches + 1, width), initializer=keras.initializers.RandomNormal(stddev=0.02)
        )

    def call(self, patches):
        cls = ops.broadcast_to(self.cls, (ops.shape(patches)[0], 1, patches.shape[-1]))
        return ops.concatenate([cls, patches], axis=1) + self.positions


def vit(classes=10, image_size=32, patch_size=4, depth=6, width=256, heads=4, dropout=0.1):
    """The functional model: images float32 [N, image_size, image_size, 3] from 0 to 1, to logits [N, classes]."""
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
    """Linear from 0 in the first step, then a cosine down to 1e-5 of the peak."""

    def __init__(self, total_steps):
        self.warmup_steps = int(WARMUP * total_steps)
        self.cosine = keras.optimizers.schedules.CosineDecay(
            PEAK_LEARNING_RATE, decay_steps=total_steps - self.warmup_steps, alpha=1e-5
        )

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rising = PEAK_LEARNING_RATE * step / max(self.warmup_steps, 1)
        falling = self.cosine(ops.maximum(step - self.warmup_steps, 0.0))
        return ops.where(step < self.warmup_steps, rising, falling)


def compile_recipe(model, total_steps):
    """Compiles `model` as the article trains it: jit_compile is left at "auto", so XLA is off on a CPU."""
    model.compile(
        optimizer=keras.optimizers.AdamW(Schedule(total_steps), weight_decay=WEIGHT_DECAY),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
        metrics=["accuracy"],
    )


def training_batches(images, labels, classes, batch_size=BATCH_SIZE):
    """images uint8 [N, size, size, 3], labels int [N] -> batches of an epoch (float32 from 0 to 1, one-hot labels)."""
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


def test_batches(images, labels, classes, batch_size=BATCH_SIZE):
    """The same without shuffling and augmentation."""
    one_hot = keras.utils.to_categorical(labels, classes)
    return tf.data.Dataset.from_tensor_slices((images.astype("float32") / 255.0, one_hot)).batch(batch_size)

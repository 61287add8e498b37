"""The Vision Transformer (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929).

Keras 3 only, so it runs on any Keras backend. Pixels go in as they are stored (0 to 255); normalisation is the model's
first layer, so nobody who calls the model can get it wrong.
"""

import keras
from keras import layers, ops

EPSILON = 1e-6  # of every LayerNorm, as in the paper's own code


@keras.saving.register_keras_serializable("vitpipe")
class Tokens(layers.Layer):
    """Patch embeddings to encoder input: prepend the learned CLS token, add the learned positions.

    Input  [N, patches, width]; output [N, patches + 1, width], the CLS token first.
    """

    def build(self, input_shape):
        _, patches, width = input_shape
        self.cls = self.add_weight(shape=(1, 1, width), initializer="zeros", name="cls")
        self.positions = self.add_weight(
            shape=(1, patches + 1, width), initializer=keras.initializers.TruncatedNormal(stddev=0.02), name="positions"
        )

    def call(self, patches):
        cls = ops.broadcast_to(ops.cast(self.cls, patches.dtype), (ops.shape(patches)[0], 1, patches.shape[-1]))
        return ops.concatenate([cls, patches], axis=1) + ops.cast(self.positions, patches.dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[1] + 1, input_shape[2])


@keras.saving.register_keras_serializable("vitpipe")
class EncoderBlock(layers.Layer):
    """Pre-norm encoder block: x + attention(norm(x)), then x + mlp(norm(x)). Shape [N, tokens, width] throughout.

    Args:
        heads: attention heads; the width must be a multiple of it.
        mlp_ratio: hidden units of the MLP, in widths.
        dropout: rate after the attention projection and after each MLP layer. Never on the attention weights: that
            would leave the fused attention path.
    """

    def __init__(self, heads, mlp_ratio=4, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.mlp_ratio, self.dropout = heads, mlp_ratio, dropout

    def build(self, input_shape):
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}: the heads share it evenly")
        hidden = (*input_shape[:-1], width * self.mlp_ratio)

        def dense(units, name, shape=input_shape, activation=None):
            layer = layers.Dense(units, activation=activation, name=name, dtype=self.dtype_policy)
            layer.build(shape)
            return layer

        def norm(name):
            layer = layers.LayerNormalization(epsilon=EPSILON, name=name, dtype=self.dtype_policy)
            layer.build(input_shape)
            return layer

        self.attention_norm = norm("attention_norm")
        self.qkv = dense(3 * width, "qkv")  # one matrix product instead of three
        self.projection = dense(width, "projection")
        self.mlp_norm = norm("mlp_norm")
        self.mlp_in = dense(hidden[-1], "mlp_in", activation="gelu")
        self.mlp_out = dense(width, "mlp_out", shape=hidden)
        self.drop = layers.Dropout(self.dropout, dtype=self.dtype_policy)

    def call(self, x, training=None):
        x = x + self.drop(self.attend(self.attention_norm(x)), training=training)
        hidden = self.drop(self.mlp_in(self.mlp_norm(x)), training=training)
        return x + self.drop(self.mlp_out(hidden), training=training)

    def attend(self, x):
        tokens, width = x.shape[1:]
        q, k, v = ops.unstack(ops.reshape(self.qkv(x), (-1, tokens, 3, self.heads, width // self.heads)), axis=2)
        return self.projection(ops.reshape(ops.nn.dot_product_attention(q, k, v), (-1, tokens, width)))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "mlp_ratio": self.mlp_ratio, "dropout": self.dropout}


@keras.saving.register_keras_serializable("vitpipe")
class ViT(keras.Model):
    """Image classifier: patches, CLS token, pre-norm encoder, final norm, linear head on the CLS token.

    Input: [N, image_size, image_size, 3], pixels from 0 to 255, integer or float. Output: float32 logits [N, classes].

    Args:
        image_size: pixels a side; a multiple of `patch_size`.
        patch_size: pixels a side of a patch.
        classes: number of classes.
        depth, width, heads: encoder blocks, embedding width, attention heads.
        mlp_ratio: hidden units of each MLP, in widths.
        dropout: dropout rate inside the blocks and on the embeddings.
        mean, std: per channel, in pixel units; the first layer computes (pixels - mean) / std.

    Raises:
        ValueError: when the sizes do not divide.
    """

    def __init__(
        self,
        image_size=32,
        patch_size=4,
        classes=10,
        depth=6,
        width=256,
        heads=4,
        mlp_ratio=4,
        dropout=0.0,
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        **kwargs,
    ):
        super().__init__(**kwargs)
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}")
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}: the heads share it evenly")
        self.config = {
            "image_size": image_size,
            "patch_size": patch_size,
            "classes": classes,
            "depth": depth,
            "width": width,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
            "dropout": dropout,
            "mean": [float(m) for m in mean],
            "std": [float(s) for s in std],
        }
        policy = self.dtype_policy
        # In float32 whatever the compute type: bfloat16 has 8 bits of mantissa, too few to subtract a mean.
        self.normalization = layers.Normalization(
            axis=-1, mean=self.config["mean"], variance=[s**2 for s in self.config["std"]], dtype="float32"
        )
        self.patches = layers.Conv2D(
            width, patch_size, strides=patch_size, kernel_initializer="glorot_uniform", name="patches", dtype=policy
        )
        self.tokens = Tokens(name="tokens", dtype=policy)
        self.drop = layers.Dropout(dropout, dtype=policy)
        self.blocks = [
            EncoderBlock(heads, mlp_ratio, dropout, name=f"block_{i:02d}", dtype=policy) for i in range(depth)
        ]
        self.norm = layers.LayerNormalization(epsilon=EPSILON, name="norm", dtype=policy)
        # A head of zeros starts every class at equal odds; logits stay float32, for the loss needs the precision.
        self.head = layers.Dense(classes, kernel_initializer="zeros", name="head", dtype="float32")
        self.build((None, image_size, image_size, 3))

    def build(self, input_shape):
        patches = (self.config["image_size"] // self.config["patch_size"]) ** 2
        width = self.config["width"]
        self.normalization.build(input_shape)
        self.patches.build(input_shape)
        self.tokens.build((None, patches, width))
        for block in self.blocks:
            block.build((None, patches + 1, width))
        self.norm.build((None, patches + 1, width))
        self.head.build((None, width))
        self.built = True

    def call(self, images, training=None):
        x = self.patches(self.normalization(images))
        x = self.tokens(ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])))
        x = self.drop(x, training=training)
        for block in self.blocks:
            x = block(x, training=training)
        # Only the CLS token is read, and LayerNorm works token by token: norm that one alone.
        return self.head(self.norm(x[:, 0]))

    def get_config(self):
        return {**super().get_config(), **self.config}

"""The Vision Transformer (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929).

Keras 3 only, so it runs on any Keras backend. Pixels go in as they are stored (0 to 255); normalisation is the model's
first layer, so nobody who calls the model can get it wrong.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self, get_args

import keras
import numpy as np
from keras import layers, ops

from trainer.settings import Pool, current_names
from trainer.sizes import check_model

EPSILON = 1e-6  # of every LayerNorm, as in the paper's own code

ImageShape = tuple[int | None, int, int, int]  # images, height, width, channels; None before a batch is known
TokenShape = tuple[int | None, int, int]  # images, tokens, width


def extract_patches(images: keras.KerasTensor, patch_size: int) -> keras.KerasTensor:
    """Images [N, height, width, channels] to their patches [N, patches, patch_size * patch_size * channels].

    Patches row by row, and within each its pixels row by row, channels last. Height and width must be multiples of
    `patch_size`. Times the kernel of the model's patch embedding, as a matrix, this is what that embedding computes.
    """
    _, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = ops.reshape(images, (-1, rows, patch_size, columns, patch_size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * columns, patch_size**2 * channels))


def sincos_positions(grid: int, width: int) -> np.ndarray:
    """Positions of a square of patches, float32 [grid * grid, width]: sines and cosines of the column, then the row.

    Each takes a quarter of the width, at wavelengths from 2 pi to almost 10,000 times that (Chen et al., 2021,
    https://arxiv.org/abs/2104.02057). The width must be a multiple of 4.
    """
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(grid**2), grid)
    angles = [column[:, None] * frequencies, row[:, None] * frequencies]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1).astype("float32")


def mimetic_kernels(width: int, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of qkv [width, 3 * width] and projection [width, width], float32, that look like trained ones.

    In trained ViTs the product of query and key weights is near the identity (a token attends to tokens like itself),
    that of value and projection weights near its negative. So each product is noise plus or minus the identity, split
    in two by its singular values; of queries and keys each head keeps the largest (Trockman and Kolter, 2023,
    https://arxiv.org/abs/2305.09828, with their amounts of noise and identity).
    """
    noise = keras.initializers.RandomNormal(stddev=width**-0.5)((heads + 1, width, width))
    noise, identity = ops.convert_to_numpy(noise), np.eye(width, dtype="float32")

    def split(product: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        left, singular, right = np.linalg.svd(product)
        return left * np.sqrt(singular), np.sqrt(singular)[:, None] * right

    pairs = [split(0.7 * head + 0.7 * identity) for head in noise[1:]]
    queries = [left[:, : width // heads] for left, _ in pairs]
    keys = [right[: width // heads].T for _, right in pairs]
    values, projection = split(0.4 * noise[0] - 0.4 * identity)
    return np.concatenate([*queries, *keys, values], axis=1), projection


@keras.saving.register_keras_serializable("vitpipe")
class ConvStem(layers.Layer):
    """Patch embedding by small convolutions (Xiao et al., 2021, https://arxiv.org/abs/2106.14881).

    As many 3x3 convolutions of stride 2 as make one step `patch_size` pixels, each with LayerNorm over the channels and
    ReLU; the last has `width` channels and each one before half as many as its successor; then a 1x1 convolution.
    Output [N, height / patch_size, width / patch_size, width]: the grid of tokens stays that of patches. The paper
    has BatchNorm, whose statistics differ between training, serving and the number of devices; LayerNorm has none.
    `ViT` checks that the sizes fit.
    """

    def __init__(self, width: int, patch_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.patch_size = width, patch_size
        steps = patch_size.bit_length() - 1
        policy = self.dtype_policy
        channels = [width >> step for step in reversed(range(steps))]
        self.convolutions = [
            layers.Conv2D(n, 3, strides=2, padding="same", name=f"conv_{i}", dtype=policy)
            for i, n in enumerate(channels)
        ]
        self.norms = [layers.LayerNormalization(epsilon=EPSILON, name=f"norm_{i}", dtype=policy) for i in range(steps)]
        self.embedding = layers.Conv2D(width, 1, name="embedding", dtype=policy)

    def build(self, input_shape: ImageShape) -> None:
        shape = input_shape
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            norm.build(shape)
        self.embedding.build(shape)

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = ops.relu(norm(convolution(x)))
        return self.embedding(x)

    def compute_output_shape(self, input_shape: ImageShape) -> ImageShape:
        n, height, width, _ = input_shape
        return (n, height // self.patch_size, width // self.patch_size, self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "patch_size": self.patch_size}


@keras.saving.register_keras_serializable("vitpipe")
class Tokens(layers.Layer):
    """Patch embeddings to encoder input: prepend the learned CLS token, if there is one, and add learned positions.

    Input [N, patches, width]; output [N, patches + 1, width], the CLS token first, or [N, patches, width] without.

    Args:
        has_cls: whether there is a CLS token.
        sincos: whether the positions of the patches, a square then, start as `sincos_positions` instead of small noise.
    """

    def __init__(self, has_cls: bool = True, sincos: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.has_cls, self.sincos = has_cls, sincos

    def build(self, input_shape: TokenShape) -> None:
        _, patches, width = input_shape
        noise = keras.initializers.TruncatedNormal(stddev=0.02)

        def positions(shape: tuple[int, int, int], dtype: str) -> keras.KerasTensor:
            if not self.sincos:
                return noise(shape, dtype)
            patterns = ops.cast(sincos_positions(round(patches**0.5), width)[None], dtype)
            return ops.concatenate([noise((1, shape[1] - patches, width), dtype), patterns], axis=1)

        if self.has_cls:
            self.cls = self.add_weight(shape=(1, 1, width), initializer="zeros", name="cls")
        self.positions = self.add_weight(
            shape=(1, patches + self.has_cls, width), initializer=positions, name="positions"
        )

    def call(self, patches: keras.KerasTensor) -> keras.KerasTensor:
        x = patches
        if self.has_cls:
            cls = ops.broadcast_to(ops.cast(self.cls, x.dtype), (ops.shape(x)[0], 1, x.shape[-1]))
            x = ops.concatenate([cls, x], axis=1)
        return x + ops.cast(self.positions, x.dtype)

    def compute_output_shape(self, input_shape: TokenShape) -> TokenShape:
        return (input_shape[0], input_shape[1] + self.has_cls, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "has_cls": self.has_cls, "sincos": self.sincos}


@keras.saving.register_keras_serializable("vitpipe")
class EncoderBlock(layers.Layer):
    """Pre-norm encoder block: x + attention(norm(x)), then x + mlp(norm(x)). Shape [N, tokens, width] throughout.

    Args:
        heads: attention heads; the width must be a multiple of it.
        mlp_ratio: hidden units of the MLP, in widths.
        dropout: rate after the attention projection and after each MLP layer. Never on the attention weights: that
            would leave the fused attention path.
        stochastic_depth: rate at which an image skips a branch, attention and MLP each for itself, in training.
        mimetic: start the attention from `mimetic_kernels`.
    """

    def __init__(
        self,
        heads: int,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        mimetic: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.heads, self.mlp_ratio, self.dropout = heads, mlp_ratio, dropout
        self.stochastic_depth, self.mimetic = stochastic_depth, mimetic

    def build(self, input_shape: TokenShape) -> None:
        width = input_shape[-1]
        hidden = (*input_shape[:-1], width * self.mlp_ratio)

        def dense(
            units: int, name: str, shape: TokenShape = input_shape, activation: str | None = None
        ) -> layers.Dense:
            layer = layers.Dense(units, activation=activation, name=name, dtype=self.dtype_policy)
            layer.build(shape)
            return layer

        def norm(name: str) -> layers.LayerNormalization:
            layer = layers.LayerNormalization(epsilon=EPSILON, name=name, dtype=self.dtype_policy)
            layer.build(input_shape)
            return layer

        self.attention_norm = norm("attention_norm")
        self.qkv = dense(3 * width, "qkv")  # one matrix product instead of three
        self.projection = dense(width, "projection")
        if self.mimetic:
            qkv, projection = mimetic_kernels(width, self.heads)
            self.qkv.kernel.assign(qkv)
            self.projection.kernel.assign(projection)
        self.mlp_norm = norm("mlp_norm")
        self.mlp_in = dense(hidden[-1], "mlp_in", activation="gelu")
        self.mlp_out = dense(width, "mlp_out", shape=hidden)
        self.drop = layers.Dropout(self.dropout, dtype=self.dtype_policy)
        self.skip = layers.Dropout(self.stochastic_depth, noise_shape=(None, 1, 1), dtype=self.dtype_policy)

    def call(self, x: keras.KerasTensor, training: bool | None = None, first_only: bool = False) -> keras.KerasTensor:
        """With `first_only` the output holds the first token alone, [N, 1, width]: the others only give to it.

        A block that is not trainable drops nothing: it could not learn to do without.
        """
        training = training and self.trainable
        q, k, v = self._queries_keys_values(x)
        if first_only:
            x, q = x[:, :1], q[:, :1]
        # Keras does not apply its own switch, `keras.config.disable_flash_attention`, to this operation.
        attended = ops.nn.dot_product_attention(q, k, v, flash_attention=keras.config.is_flash_attention_enabled())
        return self._add_branches(x, attended, training)

    def explain(self, x: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Output as of `call`, and the attention it took: float32 [N, heads, tokens, tokens], rows sum to 1.

        Slower than `call`, whose fused attention never writes these weights to memory.
        """
        q, k, v = self._queries_keys_values(x)
        scores = ops.einsum("nqhd,nkhd->nhqk", ops.cast(q, "float32"), ops.cast(k, "float32"))
        attention = ops.softmax(scores * q.shape[-1] ** -0.5, axis=-1)
        attended = ops.einsum("nhqk,nkhd->nqhd", ops.cast(attention, v.dtype), v)
        return self._add_branches(x, attended, training=False), attention

    def _queries_keys_values(self, x: keras.KerasTensor) -> list[keras.KerasTensor]:
        """Each [N, tokens, heads, width / heads]."""
        tokens, width = x.shape[1:]
        qkv = ops.reshape(self.qkv(self.attention_norm(x)), (-1, tokens, 3, self.heads, width // self.heads))
        return ops.unstack(qkv, axis=2)

    def _add_branches(
        self, x: keras.KerasTensor, attended: keras.KerasTensor, training: bool | None
    ) -> keras.KerasTensor:
        attended = self.projection(ops.reshape(attended, (-1, *x.shape[1:])))
        x = x + self.skip(self.drop(attended, training=training), training=training)
        hidden = self.drop(self.mlp_in(self.mlp_norm(x)), training=training)
        return x + self.skip(self.drop(self.mlp_out(hidden), training=training), training=training)

    def compute_output_shape(self, input_shape: TokenShape) -> TokenShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
            "mimetic": self.mimetic,
        }


@keras.saving.register_keras_serializable("vitpipe")
class ViT(keras.Model):
    """Image classifier: patches to tokens, pre-norm encoder, final norm, linear head on a summary of the tokens.

    Input: [N, image_size, image_size, 3], pixels from 0 to 255, integer or float. Output: float32 logits [N, classes].

    Args:
        image_size: pixels a side; a multiple of `patch_size`.
        patch_size: pixels a side of a patch.
        classes: number of classes.
        depth, width, heads: encoder blocks, embedding width, attention heads.
        mlp_ratio: hidden units of each MLP, in widths.
        dropout: dropout rate inside the blocks and on the embeddings.
        stochastic_depth: rate at which an image skips the branches of the last block in training; it rises evenly to
            that from 0 in the first. Regularises a deep model and is cheaper than dropout (Huang et al., 2016,
            https://arxiv.org/abs/1603.09382; linear for ViTs since DeiT).
        pool: what the classifier reads. "cls": a learned token that takes part in attention, as in the paper. "mean":
            the mean of the tokens, simpler and as good or better (Beyer et al., 2022,
            https://arxiv.org/abs/2205.01580). "seqpool": their mean weighted by a learned score, better on small data
            (SeqPool; Hassani et al., 2021, https://arxiv.org/abs/2104.05704). As in their sources, the last two have no
            CLS token.
        conv_stem: small convolutions instead of one matrix for each patch: trains more stably and sees edges across
            patches. See `ConvStem`. The paper takes one block less to pay for it; here the depth stays yours.
        mimetic: attention starts as trained attention looks (`mimetic_kernels`), and the positions of the patches as
            `sincos_positions`, so that near patches attend to each other from the first step. For small data. Both
            are learned on from there. Takes heads + 1 singular value decompositions a block whenever a model is built:
            seconds for ViT-Tiny, minutes for ViT-Base.
        mean, std: per channel, in pixel units; the first layer computes (pixels - mean) / std.

    Raises:
        ValueError: for sizes that do not fit together or are too large, or for an unknown pool.
    """

    def __init__(
        self,
        image_size: int = 32,
        patch_size: int = 4,
        classes: int = 10,
        depth: int = 6,
        width: int = 256,
        heads: int = 4,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        pool: Pool = "cls",
        conv_stem: bool = False,
        mimetic: bool = False,
        mean: Sequence[float] | np.ndarray = (127.5, 127.5, 127.5),
        std: Sequence[float] | np.ndarray = (127.5, 127.5, 127.5),
        **kwargs: Any,
    ):
        # Without autocast, which would round float pixels to the compute type before they are normalised.
        super().__init__(autocast=False, **kwargs)
        if pool not in get_args(Pool):
            raise ValueError(f"pool {pool!r} is not one of {', '.join(get_args(Pool))}")
        self.config: dict[str, Any] = {
            "image_size": image_size,
            "patch_size": patch_size,
            "classes": classes,
            "depth": depth,
            "width": width,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
            "dropout": dropout,
            "stochastic_depth": stochastic_depth,
            "pool": pool,
            "conv_stem": conv_stem,
            "mimetic": mimetic,
            "mean": [float(m) for m in mean],
            "std": [float(s) for s in std],
        }
        check_model(self.config)
        policy = self.dtype_policy
        # In float32 whatever the compute type: bfloat16 has 8 bits of mantissa, too few to subtract a mean.
        self.normalization = layers.Normalization(
            axis=-1, mean=self.config["mean"], variance=[s**2 for s in self.config["std"]], dtype="float32"
        )
        if conv_stem:
            self.patches = ConvStem(width, patch_size, name="patches", dtype=policy)
        else:
            self.patches = layers.Conv2D(
                width, patch_size, strides=patch_size, kernel_initializer="glorot_uniform", name="patches", dtype=policy
            )
        self.tokens = Tokens(has_cls=pool == "cls", sincos=mimetic, name="tokens", dtype=policy)
        self.drop = layers.Dropout(dropout, dtype=policy)
        self.blocks = [
            EncoderBlock(heads, mlp_ratio, dropout, float(rate), mimetic, name=f"block_{i:02d}", dtype=policy)
            for i, rate in enumerate(np.linspace(0, stochastic_depth, depth))
        ]
        self.norm = layers.LayerNormalization(epsilon=EPSILON, name="norm", dtype=policy)
        if pool == "seqpool":
            # Without a bias: softmax over the tokens would cancel it. In float32, like the sum that it weighs.
            self.score = layers.Dense(1, use_bias=False, name="score", dtype="float32")
        # A head of zeros starts every class at equal odds; logits stay float32, for the loss needs the precision.
        self.head = layers.Dense(classes, kernel_initializer="zeros", name="head", dtype="float32")
        self.build((None, image_size, image_size, 3))

    def build(self, input_shape: ImageShape) -> None:
        grid, width = self.config["image_size"] // self.config["patch_size"], self.config["width"]
        self.normalization.build(input_shape)
        self.patches.build(input_shape)
        self.tokens.build((None, grid**2, width))
        tokens = self.tokens.compute_output_shape((None, grid**2, width))
        for block in self.blocks:
            block.build(tokens)
        self.norm.build(tokens)
        if self.config["pool"] == "seqpool":
            self.score.build(tokens)
        self.head.build((None, width))
        self.built = True

    def call(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        x = self._embed(images, training)
        for block in self.blocks[:-1]:
            x = block(x, training=training)
        # Of the last block the classifier may read the CLS token alone; the rest of that block's work would be lost.
        return self._classify(self.blocks[-1](x, training=training, first_only=self.config["pool"] == "cls"))

    def explain(self, images: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Logits as of `call`, and the attention of every block and head.

        Returns float32 [N, classes] and float32 [N, depth, heads, tokens, tokens]: how much each token (second to last
        axis) takes from each (last axis), so rows sum to 1. The CLS token, if there is one, is token 0; patches follow
        row by row.
        """
        x = self._embed(images, training=False)
        attention = []
        for block in self.blocks:
            x, weights = block.explain(x)
            attention.append(weights)
        return self._classify(x), ops.stack(attention, axis=1)

    def _embed(self, images: keras.KerasTensor, training: bool | None) -> keras.KerasTensor:
        x = self.patches(self.normalization(images))
        x = self.tokens(ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])))
        return self.drop(x, training=training and self.drop.trainable)

    def _classify(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if self.config["pool"] == "cls":
            # Only the CLS token is read, and LayerNorm works token by token: norm that one alone.
            return self.head(self.norm(x[:, 0]))
        x = ops.cast(self.norm(x), "float32")
        if self.config["pool"] == "mean":
            return self.head(ops.mean(x, axis=1))
        return self.head(ops.sum(ops.softmax(self.score(x), axis=1) * x, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Build the model of a configuration, also of one that an earlier version wrote."""
        return super().from_config(current_names(config), custom_objects)


def resize_positions(positions: keras.KerasTensor | keras.Variable, grid: int, new_grid: int) -> keras.KerasTensor:
    """Position embeddings [1, tokens, width] of a square of grid x grid patches, for one of new_grid x new_grid.

    Bicubic, so that a position keeps its place in the image, as for the paper's fine-tuning at higher resolution. A
    CLS token's position, which stands first, is kept.
    """
    cls = positions.shape[1] - grid**2
    patches = ops.reshape(positions[:, cls:], (1, grid, grid, -1))
    patches = ops.image.resize(
        patches, (new_grid, new_grid), interpolation="bicubic", antialias=True, data_format="channels_last"
    )
    return ops.concatenate([positions[:, :cls], ops.reshape(patches, (1, new_grid**2, -1))], axis=1)


def copy_weights(source: ViT, target: ViT, but: Collection[str] = ()) -> None:
    """Copy every weight of one ViT to the weight of the same name in another, but those of the layers named in `but`.

    Position embeddings of another grid of patches are resized to the target's (`resize_positions`); all else is copied
    as it is. What is not a weight (mean and std, rates) stays the target's.

    Raises ValueError, before anything is copied, that names every weight which only one of the two has, or whose shapes
    differ, with both shapes.
    """

    def weights(model: ViT) -> dict[str, keras.Variable | keras.KerasTensor]:
        # A path opens with the name of its model.
        named = {weight.path.partition(f"{model.name}/")[2]: weight for weight in model.weights}
        return {name: weight for name, weight in named.items() if name.partition("/")[0] not in but}

    def grid(model: ViT) -> int:
        return model.config["image_size"] // model.config["patch_size"]

    old, new = weights(source), weights(target)
    if grid(source) != grid(target):
        old["tokens/positions"] = resize_positions(old["tokens/positions"], grid(source), grid(target))

    def shape(weights: Mapping[str, keras.Variable | keras.KerasTensor], name: str) -> tuple[int, ...] | str:
        return tuple(weights[name].shape) if name in weights else "missing"

    wrong = [
        f"{name} {shape(old, name)} and {shape(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if shape(old, name) != shape(new, name)
    ]
    if wrong:
        raise ValueError(f"the weights of source and target do not fit: {'; '.join(wrong)}")
    for name, weight in new.items():
        weight.assign(old[name])

"""The Vision Transformer (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929).

The model uses Keras 3 alone, so it runs on any Keras backend. Its input is pixels from 0 to 255. Normalisation is the
first layer, so that callers cannot get it wrong.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self, get_args

import keras
import numpy as np
from keras import layers, ops

from trainer.framing import Resize
from trainer.settings import Pool, current_names
from trainer.sizes import check_model

EPSILON = 1e-6  # epsilon of every LayerNorm, as in the paper's own code

ImageShape = tuple[int | None, int, int, int]  # images (None if unknown), height, width, channels
TokenShape = tuple[int | None, int, int]  # images, tokens, width


def extract_patches(images: keras.KerasTensor, patch_size: int) -> keras.KerasTensor:
    """Cut images into patches.

    The product of the result and the kernel of the model's patch embedding, reshaped to a matrix, is what that
    embedding computes without its bias.

    Args:
        images: [N, height, width, channels], of any dtype.
        patch_size: Pixels on a side of a patch, of which height and width must be multiples.

    Returns:
        Patches row by row, and their pixels row by row with channels last:
        [N, patches, patch_size * patch_size * channels].
    """
    _, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = ops.reshape(images, (-1, rows, patch_size, columns, patch_size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * columns, patch_size**2 * channels))


def sincos_positions(grid: int, width: int) -> np.ndarray:
    """Compute position embeddings from sines and cosines (Chen et al., 2021, https://arxiv.org/abs/2104.02057).

    The width has four equal parts: sines of the column, cosines of the column, sines of the row and cosines of the row.
    The wavelengths are from 2 pi to almost 20,000 pi patches.

    Args:
        grid: Number of patches on a side of the image.
        width: Width of a token, a multiple of 4.

    Returns:
        float32 [grid * grid, width].
    """
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(grid**2), grid)
    angles = [column[:, None] * frequencies, row[:, None] * frequencies]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1).astype("float32")


def mimetic_kernels(width: int, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Make initial kernels of attention that resemble trained ones (Trockman and Kolter, 2023).

    In trained ViTs the product of query and key weights is close to the identity, because a token attends to similar
    tokens. The product of value and projection weights is close to the negative identity. So here each product is noise
    plus or minus the identity, in the amounts of the paper (https://arxiv.org/abs/2305.09828). A singular value
    decomposition splits it into two kernels. For queries and keys, each head keeps the largest singular values.

    Args:
        width: Width of a token.
        heads: Number of attention heads, of which the width must be a multiple.

    Returns:
        Kernels of qkv, float32 [width, 3 * width], and of the projection, float32 [width, width].
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


def drop(x: keras.KerasTensor, draws: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Apply dropout with a mask that is a function of one random number for each image.

    Keras' own layer draws a mask for a whole batch from its state. Devices that share a batch would all draw the same
    mask, and the masks would depend on the number of devices. Here, the mask of an image does not depend on the rest of
    the batch.

    Args:
        x: [N, ...]. The sizes other than N are known.
        draws: Uniform random numbers in [0, 1), float32 [N].
        rate: Probability with which a value becomes 0. The others are divided by 1 - rate.

    Returns:
        The result, with the shape and dtype of x.
    """
    if not rate:
        return x
    seeds = _scramble(ops.cast(draws * 2.0**24, "int32"))
    # Multiples of the odd number nearest to 2^32 / golden ratio spread evenly over 32 bits, as in splitmix (Steele et
    # al., 2014).
    counters = ops.arange(math.prod(x.shape[1:]), dtype="int32") * np.int32(0x9E3779B9 - 2**32)
    bits = _scramble(seeds[:, None] + counters) & 0xFFFFFF
    kept = ops.reshape(bits >= round(rate * 2**24), (-1, *x.shape[1:]))
    return ops.where(kept, x / (1.0 - rate), ops.zeros_like(x))


def drop_branch(x: keras.KerasTensor, draws: keras.KerasTensor, rate: float) -> keras.KerasTensor:
    """Apply stochastic depth: set all values of an image to 0, with a probability of `rate`.

    Args:
        x: Output of a branch, [N, tokens, width].
        draws: Uniform random numbers in [0, 1), float32 [N].
        rate: The probability. Other images are divided by 1 - rate.

    Returns:
        The result, with the shape and dtype of x.
    """
    if not rate:
        return x
    return ops.where((draws >= rate)[:, None, None], x / (1.0 - rate), ops.zeros_like(x))


def _scramble(x: keras.KerasTensor) -> keras.KerasTensor:
    """Map int32 one-to-one to int32 that look random: the last steps of MurmurHash3 (Appleby, 2011).

    The numbers are int32, because not every backend multiplies unsigned integers. An overflow wraps, as it should.
    """
    x = ops.bitwise_xor(x, ops.bitwise_right_shift(x, 16) & 0xFFFF)
    x = x * np.int32(0x85EBCA6B - 2**32)
    x = ops.bitwise_xor(x, ops.bitwise_right_shift(x, 13) & 0x7FFFF)
    x = x * np.int32(0xC2B2AE35 - 2**32)
    return ops.bitwise_xor(x, ops.bitwise_right_shift(x, 16) & 0xFFFF)


@keras.saving.register_keras_serializable("vitpipe")
class ConvStem(layers.Layer):
    """Patch embedding by small convolutions (Xiao et al., 2021, https://arxiv.org/abs/2106.14881).

    It has log2(patch_size) convolutions of size 3x3 and stride 2, each followed by LayerNorm over the channels and
    ReLU, and then a 1x1 convolution. The last 3x3 convolution has `width` channels, and each earlier one has half
    as many as the next. The output is [N, height / patch_size, width / patch_size, width]: one token for each
    patch.

    The paper uses BatchNorm. LayerNorm replaces it, because the statistics of BatchNorm depend on the number of devices
    and differ between training and serving.

    Args:
        width: Width of a token, a multiple of `patch_size / 2`.
        patch_size: Pixels on a side of a patch, a power of two above 1. `ViT` checks both values.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, width: int, patch_size: int, **kwargs: object) -> None:
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
        """Create the weights."""
        shape = input_shape
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            norm.build(shape)
        self.embedding.build(shape)

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Embed images, [N, height, width, 3]."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = ops.relu(norm(convolution(x)))
        return self.embedding(x)

    def compute_output_shape(self, input_shape: ImageShape) -> ImageShape:
        """Return the shape of the output."""
        n, height, width, _ = input_shape
        return (n, height // self.patch_size, width // self.patch_size, self.width)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this layer."""
        return {**super().get_config(), "width": self.width, "patch_size": self.patch_size}


@keras.saving.register_keras_serializable("vitpipe")
class Tokens(layers.Layer):
    """Layer that prepends a learned CLS token to patch embeddings, if there is one, and adds learned positions.

    The input is [N, patches, width]. The output is [N, patches + 1, width] with the CLS token first, or
    [N, patches, width] without a CLS token.

    Args:
        has_cls: Whether there is a CLS token.
        sincos: Whether the positions of the patches start as `sincos_positions`, which needs a square of patches. They
            start as small noise otherwise.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, has_cls: bool = True, sincos: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.has_cls, self.sincos = has_cls, sincos

    def build(self, input_shape: TokenShape) -> None:
        """Create the weights."""
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
        """Turn patch embeddings, [N, patches, width], into the tokens of the encoder."""
        x = patches
        if self.has_cls:
            cls = ops.broadcast_to(ops.cast(self.cls, x.dtype), (ops.shape(x)[0], 1, x.shape[-1]))
            x = ops.concatenate([cls, x], axis=1)
        return x + ops.cast(self.positions, x.dtype)

    def compute_output_shape(self, input_shape: TokenShape) -> TokenShape:
        """Return the shape of the output."""
        return (input_shape[0], input_shape[1] + self.has_cls, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this layer."""
        return {**super().get_config(), "has_cls": self.has_cls, "sincos": self.sincos}


@keras.saving.register_keras_serializable("vitpipe")
class EncoderBlock(layers.Layer):
    """Pre-norm encoder block: x + attention(norm(x)), then x + mlp(norm(x)). Input and output are [N, tokens, width].

    Args:
        heads: Number of attention heads, of which the width must be a multiple.
        mlp_ratio: Hidden units of the MLP, as a multiple of the width.
        dropout: Dropout rate after the attention projection and after each layer of the MLP. Attention weights have no
            dropout, because fused attention does not support it.
        stochastic_depth: Probability with which an image skips the attention branch in training, and independently the
            MLP branch.
        mimetic: Whether the attention starts from `mimetic_kernels`.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    DRAWS = 5  # random numbers of an image: for three dropouts and two skipped branches

    def __init__(
        self,
        heads: int,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        mimetic: bool = False,
        **kwargs: object,
    ) -> None:
        # Autocast is off, because it would round `draws` to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        self.heads, self.mlp_ratio, self.dropout = heads, mlp_ratio, dropout
        self.stochastic_depth, self.mimetic = stochastic_depth, mimetic

    def build(self, input_shape: TokenShape) -> None:
        """Create the weights."""
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

    def call(
        self, x: keras.KerasTensor, draws: keras.KerasTensor | None = None, first_only: bool = False
    ) -> keras.KerasTensor:
        """Apply the block.

        Args:
            x: Tokens, [N, tokens, width].
            draws: Uniform random numbers in [0, 1), float32 [N, DRAWS], that decide dropout and stochastic depth. None:
                apply neither. A block that is not trainable never applies them, because it could not adapt to them.
            first_only: Whether to compute only the first token's output. It still attends to all tokens.

        Returns:
            [N, tokens, width], or [N, 1, width] with `first_only`.
        """
        x = ops.cast(x, self.compute_dtype)
        q, k, v = self._queries_keys_values(x)
        if first_only:
            x, q = x[:, :1], q[:, :1]
        # Keras does not apply its setting `keras.config.disable_flash_attention` to this operation by itself.
        attended = ops.nn.dot_product_attention(q, k, v, flash_attention=keras.config.is_flash_attention_enabled())
        return self._add_branches(x, attended, draws if self.trainable else None)

    def explain(self, x: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Apply the block without dropout, and return the attention weights as well.

        It is slower than `call`, whose fused attention does not write these weights to memory.

        Args:
            x: Tokens, [N, tokens, width].

        Returns:
            The output of `call`, and the attention weights, float32 [N, heads, tokens, tokens], whose rows sum to 1.
        """
        x = ops.cast(x, self.compute_dtype)
        q, k, v = self._queries_keys_values(x)
        scores = ops.einsum("nqhd,nkhd->nhqk", ops.cast(q, "float32"), ops.cast(k, "float32"))
        attention = ops.softmax(scores * q.shape[-1] ** -0.5, axis=-1)
        attended = ops.einsum("nhqk,nkhd->nqhd", ops.cast(attention, v.dtype), v)
        return self._add_branches(x, attended, None), attention

    def _queries_keys_values(self, x: keras.KerasTensor) -> list[keras.KerasTensor]:
        """Return queries, keys and values, each [N, tokens, heads, width / heads]."""
        tokens, width = x.shape[1:]
        qkv = ops.reshape(self.qkv(self.attention_norm(x)), (-1, tokens, 3, self.heads, width // self.heads))
        return ops.unstack(qkv, axis=2)

    def _add_branches(
        self, x: keras.KerasTensor, attended: keras.KerasTensor, draws: keras.KerasTensor | None
    ) -> keras.KerasTensor:
        def apply_dropout(x: keras.KerasTensor, column: int) -> keras.KerasTensor:
            return x if draws is None else drop(x, draws[:, column], self.dropout)

        def apply_stochastic_depth(x: keras.KerasTensor, column: int) -> keras.KerasTensor:
            return x if draws is None else drop_branch(x, draws[:, column], self.stochastic_depth)

        attended = self.projection(ops.reshape(attended, (-1, *x.shape[1:])))
        x = x + apply_stochastic_depth(apply_dropout(attended, 0), 1)
        hidden = apply_dropout(self.mlp_in(self.mlp_norm(x)), 2)
        return x + apply_stochastic_depth(apply_dropout(self.mlp_out(hidden), 3), 4)

    def compute_output_shape(self, input_shape: TokenShape) -> TokenShape:
        """Return the shape of the output."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this layer."""
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
    """Image classifier: patch embedding, pre-norm encoder, final norm, and a linear head on a summary of the tokens.

    The input is pixels from 0 to 255, [N, image_size, image_size, 3], of an integer or float dtype. The output is
    logits, float32 [N, classes].

    Args:
        image_size: Pixels on a side of an image, a multiple of `patch_size`.
        patch_size: Pixels on a side of a patch.
        classes: Number of classes.
        depth: Number of encoder blocks.
        width: Width of a token.
        heads: Number of attention heads of a block, of which the width must be a multiple.
        mlp_ratio: Hidden units of each MLP, as a multiple of the width.
        dropout: Dropout rate inside the blocks and on the embeddings.
        stochastic_depth: Probability with which an image skips a branch of the last block in training. It rises
            linearly from 0 in the first block, as in DeiT. It regularises deep models and costs less than dropout
            (Huang et al., 2016, https://arxiv.org/abs/1603.09382).
        pool: Summary of the tokens that the head reads. "cls": a learned token that takes part in attention, as in the
            original paper. "mean": the mean of the tokens, which is simpler and performs as well or better (Beyer et
            al., 2022, https://arxiv.org/abs/2205.01580). "seqpool": the mean weighted by a learned score, which
            performs better on small data sets (Hassani et al., 2021, https://arxiv.org/abs/2104.05704). As in these
            papers, models with "mean" and "seqpool" have no CLS token.
        conv_stem: Whether `ConvStem` embeds the patches instead of one matrix. Training is more stable, and edges
            between patches are visible to the model. The paper removes one block in exchange; `depth` is not reduced
            here.
        mimetic: Whether attention starts from `mimetic_kernels`, and the positions of the patches from
            `sincos_positions`, so that near patches attend to each other from the first step. It helps on small data
            sets. Building the model takes `heads + 1` singular value decompositions for each block: seconds for
            ViT-Tiny, minutes for ViT-Base.
        mean: Mean of each channel, in units of 0 to 255, [3].
        std: Standard deviation of each channel, in units of 0 to 255, [3]. The first layer computes
            (pixels - mean) / std.
        resize: Method that made training images square, as in `trainer.framing.Framing`. Like `background`, it
            is recorded for decoding, and has no effect on the layers.
        background: Colour of bars and behind transparent pixels, as in `trainer.framing.Framing`.
        flip_average: Whether `answer` averages over an image and its mirror image.
        **kwargs: Arguments of `keras.Model`, for example `dtype` and `name`.

    Raises:
        ValueError: If the sizes do not fit each other or are too large, or the pool is unknown.
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
        resize: Resize = "stretch",
        background: Sequence[int] = (255, 255, 255),
        flip_average: bool = False,
        **kwargs: object,
    ) -> None:
        # Autocast is off, because it would round float pixels to the compute dtype before they are normalised.
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
            "resize": resize,
            "background": list(background),
            "flip_average": flip_average,
        }
        if resize not in get_args(Resize):
            raise ValueError(f"resize {resize!r} is not one of {', '.join(get_args(Resize))}")
        check_model(self.config)
        policy = self.dtype_policy
        # Always in float32: bfloat16 has too few bits of mantissa to subtract a mean.
        self.normalization = layers.Normalization(
            axis=-1, mean=self.config["mean"], variance=[s**2 for s in self.config["std"]], dtype="float32"
        )
        if conv_stem:
            self.patches = ConvStem(width, patch_size, name="patches", dtype=policy)
        else:
            # Embeddings start with a variance of about 1. Keras' default counts the outputs once for each pixel of a
            # patch, and starts much lower; accuracy on val was worse with it (docs/benchmarks.md, section Presets).
            self.patches = layers.Conv2D(
                width, patch_size, strides=patch_size, kernel_initializer="lecun_normal", name="patches", dtype=policy
            )
        self.tokens = Tokens(has_cls=pool == "cls", sincos=mimetic, name="tokens", dtype=policy)
        self.dropout = dropout
        self.blocks = [
            EncoderBlock(heads, mlp_ratio, dropout, float(rate), mimetic, name=f"block_{i:02d}", dtype=policy)
            for i, rate in enumerate(np.linspace(0, stochastic_depth, depth))
        ]
        self.norm = layers.LayerNormalization(epsilon=EPSILON, name="norm", dtype=policy)
        if pool == "seqpool":
            # Softmax over the tokens would cancel a bias. The scores are float32, like the weighted sum.
            self.score = layers.Dense(1, use_bias=False, name="score", dtype="float32")
        # With a head of zeros all classes start with equal probability. The loss needs the precision of float32.
        self.head = layers.Dense(classes, kernel_initializer="zeros", name="head", dtype="float32")
        uses_masks = dropout > 0 or stochastic_depth > 0
        # Number of random numbers that a call in training needs for each image.
        self.draws_per_image = 1 + depth * EncoderBlock.DRAWS if uses_masks else 0
        if uses_masks:
            self.seeds = keras.random.SeedGenerator()
        self.build((None, image_size, image_size, 3))

    def build(self, input_shape: ImageShape) -> None:
        """Create the weights of all layers."""
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

    def call(
        self, images: keras.KerasTensor, training: bool | None = None, draws: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Classify images.

        Args:
            images: Pixels from 0 to 255, [N, image_size, image_size, 3].
            training: Whether to apply dropout and stochastic depth.
            draws: Uniform random numbers in [0, 1), float32 [N, draws_per_image], from which the masks of both are made
                in training. The masks of an image depend on its own row alone. None: draw them here.

        Returns:
            Logits, float32 [N, classes].
        """
        if not training or not self.draws_per_image:
            draws = None
        elif draws is None:
            draws = keras.random.uniform((ops.shape(images)[0], self.draws_per_image), seed=self.seeds)
        x = self._embed(images)
        if draws is not None and self.tokens.trainable:
            x = drop(x, draws[:, 0], self.dropout)
        # With the pool "cls" the head reads the CLS token alone, so the last block need not compute the other tokens.
        first_only = self.config["pool"] == "cls"
        for number, block in enumerate(self.blocks):
            end = 1 + (number + 1) * block.DRAWS
            block_draws = None if draws is None else draws[:, end - block.DRAWS : end]
            x = block(x, draws=block_draws, first_only=first_only and block is self.blocks[-1])
        return self._classify(x)

    def answer(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Classify images as the exported model does.

        Args:
            images: Pixels from 0 to 255, [N, image_size, image_size, 3].

        Returns:
            Logits, float32 [N, classes]. With `flip_average` they are the mean of the image's and its mirror
            image's logits.
        """
        logits = self(images, training=False)
        if self.config["flip_average"]:
            logits = (logits + self(ops.flip(images, axis=2), training=False)) / 2
        return logits

    def explain(self, images: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Classify images, and return the attention weights of every block and head as well.

        Args:
            images: Pixels from 0 to 255, [N, image_size, image_size, 3].

        Returns:
            Logits, float32 [N, classes], and attention, float32 [N, depth, heads, tokens, tokens]: the weight with
            which each token (second to last axis) reads each token (last axis). Rows sum to 1. The tokens are the CLS
            token, if there is one, and then the patches row by row. The logits are those of `answer`, and the attention
            is that of the image itself.
        """
        x = self._embed(images)
        attention = []
        for block in self.blocks:
            x, weights = block.explain(x)
            attention.append(weights)
        logits = self.answer(images) if self.config["flip_average"] else self._classify(x)
        return logits, ops.stack(attention, axis=1)

    def features(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the features of images that the head reads, [N, width].

        Args:
            images: Pixels from 0 to 255, [N, image_size, image_size, 3].
        """
        x = self._embed(images)
        for block in self.blocks:
            x = block(x)
        return self._summarize(x)

    def _embed(self, images: keras.KerasTensor) -> keras.KerasTensor:
        x = self.patches(self.normalization(images))
        return self.tokens(ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])))

    def _classify(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return self.head(self._summarize(x))

    def _summarize(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if self.config["pool"] == "cls":
            # LayerNorm treats each token separately, so only the CLS token needs it.
            return self.norm(x[:, 0])
        x = ops.cast(self.norm(x), "float32")
        if self.config["pool"] == "mean":
            return ops.mean(x, axis=1)
        return ops.sum(ops.softmax(self.score(x), axis=1) * x, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this model."""
        return {**super().get_config(), **self.config}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Build a model from what `get_config` returned, in this version or an earlier one.

        Args:
            config: The arguments that build the model.
            custom_objects: Custom Keras classes by name.

        Returns:
            The model, with new weights.
        """
        return super().from_config(current_names(config), custom_objects)


def resize_positions(positions: keras.KerasTensor | keras.Variable, grid: int, new_grid: int) -> keras.KerasTensor:
    """Resize position embeddings to another number of patches, by bicubic interpolation.

    A position keeps its place in the image, as in the original paper's fine-tuning at higher resolution. The position
    of the CLS token, which is the first, is kept unchanged.

    Args:
        positions: Position embeddings, [1, tokens, width].
        grid: Number of patches on a side of the image.
        new_grid: New number of patches on a side of the image.

    Returns:
        Position embeddings, [1, new tokens, width].
    """
    cls = positions.shape[1] - grid**2
    patches = ops.reshape(positions[:, cls:], (1, grid, grid, -1))
    patches = ops.image.resize(
        patches, (new_grid, new_grid), interpolation="bicubic", antialias=True, data_format="channels_last"
    )
    return ops.concatenate([positions[:, :cls], ops.reshape(patches, (1, new_grid**2, -1))], axis=1)


def copy_weights(source: ViT, target: ViT, exclude: Collection[str] = ()) -> None:
    """Copy the weights of one ViT to the weights of the same names in another.

    Position embeddings are resized if the number of patches differs; all other weights are copied unchanged. Values
    that are not weights, such as mean, std and dropout rates, are not copied.

    Args:
        source: The ViT to copy from.
        target: The ViT to copy to.
        exclude: Names of layers whose weights are not copied.

    Raises:
        ValueError: If weights are missing in one of the models or differ in shape. The message names all of them, and
            nothing is copied.
    """

    def weights(model: ViT) -> dict[str, keras.Variable | keras.KerasTensor]:
        # The path of a weight starts with the name of its model.
        by_name = {weight.path.partition(f"{model.name}/")[2]: weight for weight in model.weights}
        return {name: weight for name, weight in by_name.items() if name.partition("/")[0] not in exclude}

    def grid(model: ViT) -> int:
        return model.config["image_size"] // model.config["patch_size"]

    old, new = weights(source), weights(target)
    if grid(source) != grid(target):
        old["tokens/positions"] = resize_positions(old["tokens/positions"], grid(source), grid(target))

    def shape(weights: Mapping[str, keras.Variable | keras.KerasTensor], name: str) -> tuple[int, ...] | str:
        return tuple(weights[name].shape) if name in weights else "missing"

    differences = [
        f"{name} {shape(old, name)} and {shape(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if shape(old, name) != shape(new, name)
    ]
    if differences:
        raise ValueError(
            f"the weights of source and target do not match: {'; '.join(differences)}. Use models of the same "
            "architecture"
        )
    for name, weight in new.items():
        weight.assign(old[name])

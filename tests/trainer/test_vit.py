from itertools import pairwise

import keras
import numpy as np
import pytest

from trainer.settings import SIZES
from trainer.vit import (
    ConvStem,
    EncoderBlock,
    Tokens,
    ViT,
    copy_weights,
    drop,
    extract_patches,
    mimetic_kernels,
    resize_positions,
    sincos_positions,
)

TINY = {"image_size": 8, "patch_size": 4, "classes": 3, "depth": 2, "width": 8, "heads": 2}
SWITCHES = [
    {},
    {"pool": "mean"},
    {"pool": "seqpool"},
    {"conv_stem": True},
    {"mimetic": True},
    {"dropout": 0.1, "stochastic_depth": 0.1, "mlp_ratio": 2},
    {"mean": [1, 2, 3], "std": [4, 5, 6]},
    {"pool": "seqpool", "conv_stem": True, "mimetic": True, "dropout": 0.1, "stochastic_depth": 0.1, "mean": [1, 2, 3]},
]
every_switch = pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: "-".join(switches) or "plain")
none_and_all = pytest.mark.parametrize("switches", [SWITCHES[0], SWITCHES[-1]], ids=["plain", "all"])


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8")


def random_head(model):
    """Give the head random weights, because outputs of a new head, which is all zeros, do not differ."""
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    return model


def parameters(image_size, patch_size, classes, depth, width, mlp_ratio=4, pool="cls", conv_stem=False, **_):
    """Return the number of parameters of a ViT by the closed formula."""
    tokens = (image_size // patch_size) ** 2 + (pool == "cls")
    if conv_stem:  # 3x3 kernels, biases and LayerNorms, then a 1x1 convolution
        channels = [width >> i for i in range(patch_size.bit_length() - 1)][::-1]
        stem = sum(9 * before * after + 3 * after for before, after in pairwise([3, *channels])) + width**2 + width
    else:
        stem = 3 * patch_size**2 * width + width
    attention = 4 * width**2 + 4 * width  # qkv and projection
    mlp = 2 * mlp_ratio * width**2 + mlp_ratio * width + width
    block = attention + mlp + 4 * width  # and two LayerNorms
    summary = {"cls": width, "mean": 0, "seqpool": width}[pool]
    return stem + summary + tokens * width + depth * block + 2 * width + width * classes + classes


@pytest.mark.parametrize(
    "shape",
    [
        {"image_size": 16, "patch_size": 2, "classes": 7, "depth": 2, "width": 12, "heads": 3},
        {"image_size": 16, "patch_size": 16, "classes": 2, "depth": 1, "width": 24, "heads": 1, "mlp_ratio": 3},
    ],
)
@every_switch
def test_the_number_of_parameters_follows_the_formula(shape, switches):
    config = TINY | switches | shape
    assert ViT(**config).count_params() == parameters(**config)


@pytest.mark.parametrize(
    ("size", "image_size", "patch_size", "classes", "known"),
    [
        ("tiny", 32, 4, 10, 4_771_082),
        ("tiny", 224, 16, 1000, 5_243_624),
        ("small", 224, 16, 1000, 14_952_808),
        ("base", 224, 16, 1000, 86_567_656),
        ("large", 224, 16, 1000, 304_326_632),
        ("huge", 224, 16, 1000, 632_199_400),
    ],
)
def test_every_size_has_its_known_number_of_parameters(size, image_size, patch_size, classes, known):
    config = {"image_size": image_size, "patch_size": patch_size, "classes": classes, **SIZES[size]}
    assert parameters(**config) == known
    # One block is built, because all blocks are equal and a huge model takes gigabytes.
    model = ViT(**config | {"depth": 1})
    block = model.blocks[0].count_params()
    assert model.count_params() + (config["depth"] - 1) * block == known


def test_patches_come_row_by_row_and_so_do_their_pixels():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype("float32")
    patches = np.array(extract_patches(images, 2))
    assert patches.shape == (2, 6, 12)
    for number, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]):
        patch = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(patches[:, number], patch.reshape(2, 12))


def test_the_patch_embedding_is_a_matrix_times_each_patch():
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    embedding = ViT(**TINY).patches
    embedding.bias.assign(np.arange(8))
    kernel = np.array(embedding.kernel).reshape(-1, 8)
    by_matrix = np.array(extract_patches(images, 4)) @ kernel + np.arange(8)
    np.testing.assert_allclose(np.array(embedding(images)).reshape(2, 4, 8), by_matrix, atol=1e-5)


@every_switch
def test_every_weight_learns(switches):
    rng = np.random.default_rng(0)
    model = random_head(ViT(**TINY | switches))
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    model.fit(rng.integers(0, 256, (32, 8, 8, 3), "uint8"), rng.integers(0, 3, 32), batch_size=32, verbose=0)
    still = [
        weight.path for weight, old in zip(model.trainable_weights, before, strict=True) if np.array_equal(weight, old)
    ]
    assert still == []


def test_a_new_model_gives_every_class_equal_probability(images):
    assert np.array_equal(ViT(**TINY)(images), np.zeros((4, 3)))


def test_pixels_are_normalised_by_the_model_itself(images):
    mean, std = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
    plain = random_head(ViT(**TINY, mean=[0, 0, 0], std=[1, 1, 1]))
    model = ViT(**TINY, mean=mean, std=std)
    model.set_weights(plain.get_weights())
    np.testing.assert_allclose(model(images), plain((images - mean) / std), atol=1e-5)


def test_integer_and_float_pixels_give_the_same_logits(images):
    model = random_head(ViT(**TINY))
    np.testing.assert_array_equal(model(images), model(images.astype("float32")))


def test_positions_distinguish_patches(images):
    model = random_head(ViT(**TINY))
    mirrored = np.concatenate([images[:, :, 4:], images[:, :, :4]], axis=2)
    assert not np.allclose(model(images), model(mirrored))
    model.tokens.positions.assign(np.zeros(model.tokens.positions.shape))
    np.testing.assert_allclose(model(images), model(mirrored), atol=1e-5)


@every_switch
def test_it_saves_loads_and_clones_with_equal_outputs(images, switches, tmp_path):
    model = random_head(ViT(**TINY | switches))
    out = model(images)
    model.save(tmp_path / "vit.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "vit.keras")(images), out)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(images), out)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (EncoderBlock(2, mlp_ratio=3, dropout=0.1, stochastic_depth=0.2, mimetic=True), (2, 5, 8)),
        (Tokens(), (2, 4, 8)),
        (Tokens(has_cls=False, sincos=True), (2, 4, 8)),
        (ConvStem(8, 4), (2, 8, 8, 3)),
    ],
    ids=["block", "tokens", "tokens without CLS", "conv stem"],
)
def test_each_layer_clones_and_knows_its_output_shape(layer, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    out = layer(x)
    assert tuple(out.shape) == tuple(layer.compute_output_shape(shape))
    config = keras.saving.serialize_keras_object(layer)
    clone = keras.saving.deserialize_keras_object(config)
    clone(x)
    clone.set_weights(layer.get_weights())
    np.testing.assert_array_equal(clone(x), out)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@none_and_all
def test_logits_are_float32_under_mixed_precision(images, switches, policy):
    model = random_head(ViT(**TINY | switches, dtype=keras.DTypePolicy(policy)))
    assert keras.backend.standardize_dtype(model(images).dtype) == "float32"
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.trainable_weights} == {"float32"}


def test_pixels_are_not_rounded_to_the_compute_type():
    model = random_head(ViT(**TINY, mean=[200] * 3, std=[1] * 3, dtype=keras.DTypePolicy("mixed_bfloat16")))
    images = np.full((2, 8, 8, 3), 200.0, "float32")
    images[1] += 0.25  # between two numbers of bfloat16
    logits = np.array(model(images))
    assert not np.allclose(logits[0], logits[1], atol=1e-3)


def test_dropout_is_applied_in_training_only(images):
    model = random_head(ViT(**TINY, dropout=0.5))
    np.testing.assert_array_equal(model(images, training=False), model(images, training=False))
    assert not np.array_equal(model(images, training=True), model(images, training=True))


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = np.ones((50, 7, 16), "float32")
    dropped = np.array(drop(x, np.random.default_rng(0).random(50, np.float32), 0.3))
    assert np.unique(dropped) == pytest.approx([0, 1 / 0.7])
    shares = (dropped == 0).mean(axis=(1, 2))
    assert shares.mean() == pytest.approx(0.3, abs=0.02)  # 5 standard errors are 0.03 for all 5,600 values
    assert shares.min() > 0.1 and shares.max() < 0.5
    assert len(np.unique(dropped.reshape(50, -1), axis=0)) == 50
    agreement = np.corrcoef((dropped == 0).reshape(50, -1))
    assert np.abs(agreement - np.eye(50)).max() < 0.5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_masks_differ_between_images_under_mixed_precision(policy):
    block = EncoderBlock(heads=2, dropout=0.5, dtype=keras.DTypePolicy(policy))
    x = np.ones((400, 5, 8), "float32")
    block(x)
    block.projection.kernel.assign(np.zeros((8, 8)))
    block.projection.bias.assign(np.ones(8))
    block.mlp_out.kernel.assign(np.zeros((32, 8)))
    draws = np.random.default_rng(0).random((400, block.DRAWS), np.float32)
    outputs = np.array(keras.ops.cast(block(x, draws=draws), "float32")).reshape(400, -1)
    assert len(np.unique(outputs, axis=0)) == 400


def test_the_masks_of_an_image_follow_from_its_draws_alone(images):
    model = random_head(ViT(**TINY, dropout=0.3, stochastic_depth=0.5))
    images = np.repeat(images[:2], 4, axis=0)
    draws = np.random.default_rng(0).random((8, model.draws_per_image), np.float32)
    whole = np.array(model(images, training=True, draws=draws))
    halves = [model(images[half], training=True, draws=draws[half]) for half in (slice(4), slice(4, 8))]
    np.testing.assert_allclose(np.concatenate([np.array(half) for half in halves]), whole, atol=1e-5)
    assert len(np.unique(whole.round(4), axis=0)) == 8


def test_stochastic_depth_drops_a_whole_branch_of_an_image():
    block = EncoderBlock(heads=2, stochastic_depth=0.5)
    x = np.random.default_rng(0).normal(size=(64, 5, 8)).astype("float32")
    block(x)
    block.mlp_out.kernel.assign(np.zeros((32, 8)))  # so that only the attention branch has an effect
    branch = np.array(block(x)) - x
    draws = np.random.default_rng(1).random((64, block.DRAWS), np.float32)
    trained = np.array(block(x, draws)) - x
    dropped = np.abs(trained).max(axis=(1, 2)) == 0
    assert 10 < dropped.sum() < 54
    np.testing.assert_allclose(trained[~dropped], 2 * branch[~dropped], atol=1e-5)


def test_stochastic_depth_rises_over_the_blocks():
    model = ViT(**TINY | {"depth": 3}, stochastic_depth=0.2)
    assert [block.stochastic_depth for block in model.blocks] == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize("pool", ["mean", "seqpool"])
def test_pools_without_a_cls_token_read_every_token(images, pool):
    """The expected logits are computed in NumPy from the tokens of the last block."""
    model = random_head(ViT(**TINY, pool=pool))
    x = model.tokens(keras.ops.reshape(model.patches(model.normalization(images)), (4, 4, 8)))
    assert x.shape == (4, 4, 8)  # no CLS token
    for block in model.blocks:
        x = block(x)
    x = np.array(model.norm(x))
    weights = np.ones((4, 4, 1)) if pool == "mean" else np.exp(x @ np.array(model.score.kernel))
    pooled = (weights / weights.sum(1, keepdims=True) * x).sum(1)
    wanted = pooled @ np.array(model.head.kernel) + np.array(model.head.bias)
    np.testing.assert_allclose(model(images), wanted, atol=1e-5)


def test_the_conv_stem_keeps_the_grid_and_doubles_its_channels():
    stem = ConvStem(width=32, patch_size=8)
    assert stem(np.zeros((2, 16, 24, 3))).shape == (2, 2, 3, 32)
    assert [tuple(convolution.kernel.shape) for convolution in stem.convolutions] == [
        (3, 3, 3, 8),
        (3, 3, 8, 16),
        (3, 3, 16, 32),
    ]


def test_mimetic_kernels_resemble_trained_kernels():
    width, heads = 32, 2
    qkv, projection = mimetic_kernels(width, heads)
    queries, keys, values = np.split(qkv, 3, axis=1)
    share = width // heads
    for head in range(heads):
        columns = slice(head * share, (head + 1) * share)
        product = queries[:, columns] @ keys[:, columns].T
        assert np.linalg.matrix_rank(product) == share
        assert np.trace(product) / width > 0.25
    assert not np.allclose(queries[:, :share], queries[:, share:])  # heads differ
    product = values @ projection
    assert np.diag(product).mean() == pytest.approx(-0.4, abs=0.1)
    off_diagonal = product[~np.eye(width, dtype=bool)]
    assert off_diagonal.std() == pytest.approx(0.4 / width**0.5, rel=0.2)


def test_a_mimetic_block_has_those_kernels_and_follows_the_seed():
    def kernels():
        keras.utils.set_random_seed(3)
        block = ViT(**TINY, mimetic=True).blocks[1]
        return np.array(block.qkv.kernel), np.array(block.projection.kernel)

    qkv, projection = kernels()
    np.testing.assert_array_equal(kernels()[0], qkv)
    assert np.trace(qkv[:, 16:] @ projection) < 0


def test_mimetic_attention_prefers_near_patches():
    model = ViT(image_size=32, patch_size=4, depth=1, width=64, heads=2, pool="mean", mimetic=True)
    grey = np.full((1, 32, 32, 3), 127, "uint8")
    attention = np.array(model.explain(grey)[1])[0, 0].mean(axis=0)
    row, column = np.divmod(np.arange(64), 8)
    distance = np.hypot(row[:, None] - row, column[:, None] - column)
    assert attention[distance == 1].mean() > 1.5 * attention[distance > 4].mean()


def test_sincos_positions_are_unique_and_nearest_to_their_neighbours():
    positions = sincos_positions(4, 16)
    assert positions.shape == (16, 16)
    likeness = positions @ positions.T
    assert (likeness.argmax(axis=1) == np.arange(16)).all()
    assert likeness[0, 1] == pytest.approx(likeness[0, 4])  # the patch to the right is as near as the patch below
    assert likeness[0, 1] > likeness[0, 2] > likeness[0, 15]


def test_answers_are_averaged_over_the_mirror_image_if_set(images):
    model = random_head(ViT(**TINY, flip_average=True))
    mean = (np.array(model(images)) + np.array(model(images[:, :, ::-1]))) / 2
    np.testing.assert_allclose(model.answer(images), mean, atol=1e-6)
    np.testing.assert_allclose(model.explain(images)[0], mean, atol=1e-6)
    np.testing.assert_allclose(model.answer(images[:, :, ::-1]), mean, atol=1e-6)
    plain = ViT.from_config(model.get_config() | {"flip_average": False})
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(plain.answer(images), model(images))


def test_explain_returns_the_same_logits_and_the_attention(images):
    model = random_head(ViT(**TINY))
    logits, attention = model.explain(images)
    np.testing.assert_allclose(logits, model(images), atol=1e-5)
    assert attention.shape == (4, 2, 2, 5, 5)
    assert keras.backend.standardize_dtype(attention.dtype) == "float32"
    np.testing.assert_allclose(np.sum(attention, axis=-1), np.ones((4, 2, 2, 5)), atol=1e-5)


@every_switch
def test_explain_agrees_with_fused_attention(images, switches):
    model = random_head(ViT(**TINY | switches))
    logits, attention = model.explain(images)
    np.testing.assert_allclose(logits, model(images), atol=1e-4)
    np.testing.assert_allclose(np.sum(attention, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_bfloat16", 0.04), ("mixed_float16", 0.005)])
def test_explain_agrees_with_fused_attention_under_mixed_precision(images, policy, tolerance):
    model = random_head(ViT(**TINY, dtype=keras.DTypePolicy(policy)))
    logits, attention = model.explain(images)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    np.testing.assert_allclose(logits, model(images), atol=tolerance * np.abs(logits).max())
    np.testing.assert_allclose(np.sum(attention, axis=-1), 1, atol=1e-5)


def test_the_attention_is_the_softmax_of_the_scores():
    """The expected attention is computed in NumPy from the weights of the block, with very different scores."""
    block = EncoderBlock(heads=2)
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")
    block(x)
    block.qkv.kernel.assign(2 * np.array(block.qkv.kernel))
    qkv = np.array(block.qkv(block.attention_norm(x))).reshape(3, 5, 3, 2, 4)
    scores = np.exp(np.einsum("nqhd,nkhd->nhqk", qkv[:, :, 0], qkv[:, :, 1]) / 2)
    np.testing.assert_allclose(block.explain(x)[1], scores / scores.sum(-1, keepdims=True), atol=1e-5)


def test_the_block_agrees_with_its_formula():
    """The expected output is computed in NumPy from the weights of the block."""
    block = EncoderBlock(heads=2)
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")
    got = np.array(block(x))

    def norm(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * np.array(layer.gamma) + np.array(layer.beta)

    def dense(x, layer):
        return x @ np.array(layer.kernel) + np.array(layer.bias)

    qkv = dense(norm(x, block.attention_norm), block.qkv).reshape(3, 5, 3, 2, 4)
    q, k, v = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(4))
    attended = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(3, 5, 8)
    x = x + dense(attended, block.projection)
    hidden = np.array(keras.ops.gelu(dense(norm(x, block.mlp_norm), block.mlp_in), approximate=False))
    np.testing.assert_allclose(got, x + dense(hidden, block.mlp_out), atol=1e-5)


def test_tokens_put_the_cls_token_first():
    tokens = Tokens()
    patches = np.zeros((2, 4, 8), "float32")
    tokens.build(patches.shape)
    tokens.cls.assign(np.ones((1, 1, 8)))
    tokens.positions.assign(np.zeros((1, 5, 8)))
    out = np.array(tokens(patches))
    assert out.shape == (2, 5, 8)
    assert (out[:, 0] == 1).all() and (out[:, 1:] == 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 3}, "image_size 8 is not a multiple of patch_size 3"),
        ({"heads": 3}, "width 8 .* heads 3"),
        ({"conv_stem": True, "image_size": 12, "patch_size": 6}, "patch_size 6 is not a power of two"),
        ({"conv_stem": True, "patch_size": 1}, "patch_size 1 is not a power of two"),
        ({"conv_stem": True, "patch_size": 8, "width": 6}, "width 6 is not a multiple of 4, half of patch_size"),
        ({"mimetic": True, "width": 6}, "width 6 is not a multiple of 4, which mimetic needs"),
        ({"image_size": 4096, "patch_size": 8}, "makes 262,144 patches"),
        ({"pool": "max"}, "pool 'max' is not one of cls, mean, seqpool"),
    ],
)
def test_invalid_sizes_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        ViT(**TINY | wrong)


def assert_equal_weights(source, target):
    for old, new in zip(source.weights, target.weights, strict=True):
        np.testing.assert_array_equal(old, new, err_msg=new.path)


@none_and_all
def test_weights_are_copied_exactly(images, switches):
    source, target = random_head(ViT(**TINY | switches)), ViT(**TINY | switches)
    copy_weights(source, target)
    assert_equal_weights(source, target)
    np.testing.assert_array_equal(target(images), source(images))


def test_weights_are_copied_by_name_regardless_of_the_models_names():
    with keras.name_scope("outer"):
        source = random_head(ViT(**TINY, name="block"))
    target = ViT(**TINY, name="tokens")
    copy_weights(source, target)
    assert_equal_weights(source, target)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_positions_are_resized_to_another_grid(pool):
    source, target = (ViT(**TINY | {"image_size": size}, pool=pool) for size in (16, 32))
    cls = int(pool == "cls")
    wave = np.cos(np.pi * (np.arange(8) + 0.5) / 8)  # half a wave over the image, sampled at 8 and at 4 centres
    coarse = np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    positions = np.random.default_rng(0).normal(size=(1, 16 + cls, 8)).astype("float32")
    positions[0, cls:, 0] = np.repeat(coarse, 4)  # changes from row to row
    positions[0, cls:, 1] = np.tile(coarse, 4)  # from column to column
    positions[0, cls:, 2] = 0.5
    source.tokens.positions.assign(positions)
    copy_weights(source, target)
    got = np.array(target.tokens.positions)
    np.testing.assert_array_equal(got[:, :cls], positions[:, :cls])
    grids = got[0, cls:].reshape(8, 8, 8)
    np.testing.assert_allclose(grids[..., 0], np.repeat(wave[:, None], 8, axis=1), atol=0.1)
    np.testing.assert_allclose(grids[..., 1], np.repeat(wave[None], 8, axis=0), atol=0.1)
    np.testing.assert_allclose(grids[..., 2], 0.5, atol=1e-6)
    others = [(a, b) for a, b in zip(source.weights, target.weights, strict=True) if a.name != "positions"]
    assert all(np.array_equal(a, b) for a, b in others)


def test_positions_of_a_larger_grid_are_averaged_down():
    noise = np.random.default_rng(0).normal(size=(1, 257, 4)).astype("float32")
    small = np.array(resize_positions(noise, 16, 4))
    assert small.shape == (1, 17, 4)
    assert small[:, 1:].std() < 0.5  # without averaging the noise would keep its deviation of 1


@pytest.mark.parametrize(
    ("other", "messages"),
    [
        ({"classes": 5}, [r"head/kernel \(8, 3\) and \(8, 5\)", r"head/bias \(3,\) and \(5,\)"]),
        ({"pool": "mean"}, [r"tokens/cls \(1, 1, 8\) and missing", r"positions \(1, 5, 8\) and \(1, 4, 8\)"]),
        ({"depth": 3}, [r"block_02/qkv/kernel missing and \(8, 24\)"]),
        ({"depth": 1}, [r"block_01/qkv/kernel \(8, 24\) and missing"]),
        ({"conv_stem": True}, [r"patches/kernel \(4, 4, 3, 8\) and missing", "patches/conv_0/kernel missing"]),
        ({"classes": 5, "image_size": 16}, ["head/kernel"]),
    ],
)
def test_weights_that_do_not_match_are_named_and_nothing_is_copied(other, messages):
    source, target = random_head(ViT(**TINY)), ViT(**TINY | other)
    before = target.get_weights()
    for message in messages:
        with pytest.raises(ValueError, match=message):
            copy_weights(source, target)
    for old, new in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

import keras
import numpy as np
import pytest

from trainer.vit import EncoderBlock, Tokens, ViT

TINY = {"image_size": 8, "patch_size": 4, "classes": 3, "depth": 2, "width": 8, "heads": 2}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8")


def random_head(model):
    """A new head is all zeros; give it weights, so that outputs differ."""
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    return model


def test_the_seed_configuration_has_its_published_size():
    assert ViT().count_params() == 4_771_082


def test_every_weight_learns(images):
    model = random_head(ViT(**TINY))
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.array([0, 1, 2, 0]), verbose=0)
    still = [
        weight.path for weight, old in zip(model.trainable_weights, before, strict=True) if np.array_equal(weight, old)
    ]
    assert still == []


def test_a_new_model_gives_every_class_equal_odds(images):
    assert np.array_equal(ViT(**TINY)(images), np.zeros((4, 3)))


def test_pixels_are_normalised_by_the_model_itself(images):
    mean, std = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
    plain = random_head(ViT(**TINY, mean=[0, 0, 0], std=[1, 1, 1]))
    model = ViT(**TINY, mean=mean, std=std)
    model.set_weights(plain.get_weights())
    np.testing.assert_allclose(model(images), plain((images - mean) / std), atol=1e-5)


def test_integer_and_float_pixels_are_the_same(images):
    model = random_head(ViT(**TINY))
    np.testing.assert_array_equal(model(images), model(images.astype("float32")))


def test_positions_tell_patches_apart(images):
    model = random_head(ViT(**TINY))
    mirrored = np.concatenate([images[:, :, 4:], images[:, :, :4]], axis=2)
    assert not np.allclose(model(images), model(mirrored))
    model.tokens.positions.assign(np.zeros(model.tokens.positions.shape))
    np.testing.assert_allclose(model(images), model(mirrored), atol=1e-5)


def test_it_saves_and_loads_with_equal_outputs(images, tmp_path):
    model = random_head(ViT(**TINY, mean=[1, 2, 3], std=[4, 5, 6]))
    model.save(tmp_path / "vit.keras")
    loaded = keras.models.load_model(tmp_path / "vit.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


def test_logits_are_float32_under_mixed_precision(images):
    model = random_head(ViT(**TINY, dtype=keras.DTypePolicy("mixed_bfloat16")))
    assert keras.backend.standardize_dtype(model(images).dtype) == "float32"
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.trainable_weights} == {"float32"}


def test_dropout_acts_in_training_only(images):
    model = random_head(ViT(**TINY, dropout=0.5))
    np.testing.assert_array_equal(model(images, training=False), model(images, training=False))
    assert not np.array_equal(model(images, training=True), model(images, training=True))


def test_the_block_agrees_with_the_formula_written_out():
    """Pre-norm attention and MLP in plain numpy, on the block's own weights."""
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
    [({"patch_size": 3}, "image_size 8 is not a multiple of patch_size 3"), ({"heads": 3}, "width 8 .* heads 3")],
)
def test_sizes_that_do_not_divide_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        ViT(**TINY | wrong)

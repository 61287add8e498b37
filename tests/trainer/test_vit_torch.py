"""The ViT against one built from PyTorch's own encoder layers, an independent implementation, on the same weights."""

from functools import partial

import keras
import numpy as np
import pytest

from trainer.vit import ViT, extract_patches

torch = pytest.importorskip("torch", reason="PyTorch is no part of this project, only a second opinion on its model")

DEPTH, WIDTH, HEADS = 2, 16, 4
TOLERANCE = 2e-5


class TorchViT(torch.nn.Module):
    """Patches as flat rows [N, patches, pixels] to logits, with what a Keras ViT holds in its weights."""

    def __init__(self, pixels, tokens, classes, head, epsilon=1e-6, gelu="none"):
        super().__init__()
        self.head_kind = head
        self.patches = torch.nn.Linear(pixels, WIDTH)
        self.cls = torch.nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = torch.nn.Parameter(torch.zeros(1, tokens, WIDTH))
        self.blocks = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(
                WIDTH,
                HEADS,
                4 * WIDTH,
                dropout=0.0,
                # As a function that PyTorch does not know, or its fast path takes the exact GELU whatever is asked for.
                activation=partial(torch.nn.functional.gelu, approximate=gelu),
                layer_norm_eps=epsilon,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(DEPTH)
        )
        self.norm = torch.nn.LayerNorm(WIDTH, eps=epsilon)
        self.head = torch.nn.Linear(WIDTH, classes)

    def forward(self, patches):
        x = self.patches(patches)
        if self.head_kind == "cls":
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.head_kind == "cls" else x.mean(dim=1))

    @torch.no_grad()
    def take(self, model):
        """The weights of a Keras ViT. Kernels of Keras are [in, out], those of PyTorch [out, in]."""

        def put(target, value):
            value = torch.from_numpy(np.array(value))
            assert target.shape == value.shape
            target.copy_(value)

        def dense(target, kernel, bias):
            put(target.weight, np.array(kernel).reshape(-1, kernel.shape[-1]).T)
            put(target.bias, bias)

        def norm(target, layer):
            put(target.weight, layer.gamma)
            put(target.bias, layer.beta)

        dense(self.patches, model.patches.kernel, model.patches.bias)
        if self.head_kind == "cls":
            put(self.cls, model.tokens.cls)
        put(self.positions, model.tokens.positions)
        for block, layer in zip(self.blocks, model.blocks, strict=True):
            put(block.self_attn.in_proj_weight, np.array(layer.qkv.kernel).T)
            put(block.self_attn.in_proj_bias, layer.qkv.bias)
            dense(block.self_attn.out_proj, layer.projection.kernel, layer.projection.bias)
            dense(block.linear1, layer.mlp_in.kernel, layer.mlp_in.bias)
            dense(block.linear2, layer.mlp_out.kernel, layer.mlp_out.bias)
            norm(block.norm1, layer.attention_norm)
            norm(block.norm2, layer.mlp_norm)
        norm(self.norm, model.norm)
        dense(self.head, model.head.kernel, model.head.bias)


@pytest.fixture(params=["cls", "mean"])
def model(request):
    """A ViT in which no weight is at a start that would hide it, and the tokens vary as little as epsilon matters."""
    model = ViT(image_size=8, patch_size=4, classes=3, depth=DEPTH, width=WIDTH, heads=HEADS, pool=request.param)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        noise = rng.normal(size=weight.shape).astype("float32")
        scale = 0.3
        if weight.name == "gamma":
            noise, scale = 1 + 0.3 * noise, 1.0
        elif weight.path.split("/")[1] in ("patches", "tokens"):
            scale = 3e-3  # variances near 1e-5, so that an epsilon of another size shows
        weight.assign(scale * noise)
    return model


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), "uint8")


def answer(model, images, **options):
    normalised = model.normalization(images)
    patches = keras.ops.convert_to_numpy(extract_patches(normalised, 4))
    tokens = model.tokens.positions.shape[1]
    independent = TorchViT(patches.shape[-1], tokens, 3, model.config["pool"], **options).eval()
    independent.take(model)
    with torch.no_grad():
        return independent(torch.from_numpy(np.array(patches))).numpy()


def test_an_independent_implementation_gives_the_same_logits(model, images):
    got, wanted = np.array(model(images)), answer(model, images)
    assert np.ptp(wanted, axis=0).min() > 0.01  # the images are told apart
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("wrong", [{"epsilon": 1e-5}, {"gelu": "tanh"}])
def test_it_would_show_another_epsilon_or_gelu(model, images, wrong):
    assert np.abs(np.array(model(images)) - answer(model, images, **wrong)).max() > 10 * TOLERANCE

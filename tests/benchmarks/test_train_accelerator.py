import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import gpu_results
import packed
import train_accelerator
import weights

ROOT = Path(__file__).parents[2]
TINY = [
    "model.image_size=8",
    "model.depth=1",
    "model.width=8",
    "model.heads=2",
    "training.batch_size=8",
]


@pytest.fixture
def images(tmp_path):
    """40 images of 8x8 pixels as `packed.pack` writes them: 24 of train, 8 of val, 8 of test."""
    generator = np.random.default_rng(0)
    encoded = []
    for _ in range(40):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
        encoded.append(file.getvalue())
    np.savez(
        tmp_path / "tiny.npz",
        encoded=np.frombuffer(b"".join(encoded), np.uint8),
        ends=np.cumsum([len(image) for image in encoded]),
        labels=np.arange(40, dtype=np.int32) % 3,
        splits=np.repeat([0, 1, 2], [24, 8, 8]).astype(np.uint8),
        class_names=np.array(["a", "b", "c"]),
    )
    return tmp_path / "tiny.npz"


def run(*arguments, backend="jax"):
    overrides = [part for override in TINY for part in ("--set", override)]
    return subprocess.run(
        [sys.executable, "benchmarks/train_accelerator.py", *map(str, arguments), *overrides],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_two_seeds_are_trained_and_their_results_written(images, tmp_path):
    pytest.importorskip("jax", reason="an epoch is one jax.lax.scan")
    out = tmp_path / "results.jsonl"
    done = run(images, "--seeds", 2, "--epochs", 2, "--peak-tflops", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "over 2 seeds, the weights that were best on val" in done.stdout
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert [first["seed"], second["seed"]] == [0, 1]
    assert all(0 <= row["test_accuracy"] <= 1 and row["epoch"] in (1, 2) for row in (first, second))
    assert first["seconds_with_compilation"] == first["seconds"] + first["compile_seconds"]
    # The first seed's time excludes all compilation, and the second seed compiles nothing.
    assert first["compile_seconds"] > 10 * max(second["compile_seconds"], first["seconds"] - second["seconds"])


@pytest.mark.slow
def test_a_teacher_is_trained_first_and_changes_the_result(images, tmp_path):
    pytest.importorskip("jax", reason="an epoch is one jax.lax.scan")
    results = []
    for weight in (0, 1):
        out, saved = tmp_path / f"results-{weight}.jsonl", tmp_path / f"vit-{weight}.npz"
        teacher = ["--set", "training.teacher_epochs=2", "--set", f"training.teacher_weight={weight}"]
        done = run(images, "--epochs", 2, *teacher, "--out", out, "--save", saved)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(out.read_text()))
    untaught, taught = results
    assert untaught["teacher"]["test_accuracy"] == taught["teacher"]["test_accuracy"]
    assert untaught["weights_sha256"] != taught["weights_sha256"]


@pytest.mark.slow
def test_saved_weights_are_the_tested_weights(images, tmp_path):
    """A model on another backend reaches the measured accuracy with the saved weights."""
    pytest.importorskip("jax", reason="an epoch is one jax.lax.scan")
    saved, out = tmp_path / "vit.npz", tmp_path / "results.jsonl"
    options = ["--images", 8, "--set", "training.use_val=true", "--peak-tflops", 1]
    done = run(images, "--epochs", 2, *options, "--save", saved, "--out", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["weights_sha256"] in done.stdout
    assert (result["training_images"], result["epoch"], result["val_accuracy"]) == (16, 2, None)

    pixels, labels = packed.load(images)["test"]
    model = weights.load(saved)
    assert (np.asarray(model(pixels)).argmax(-1) == labels).mean() == result["test_accuracy"]
    columns, rows = gpu_results.table([result])
    assert columns == ["figure", "cifar10"]
    assert ["test accuracy", f"{result['test_accuracy']:.4f}"] in rows


def test_only_the_first_images_are_decoded_if_asked(images):
    every, some = packed.load(images), packed.load(images, 4)
    assert {name: len(labels) for name, (_, labels) in every.items()} == {"train": 24, "val": 8, "test": 8}
    for name in every:
        assert len(some[name][1]) == 4
        np.testing.assert_array_equal(some[name][0], every[name][0][:4])
        np.testing.assert_array_equal(some[name][1], every[name][1][:4])


def attention(script):
    pytest.importorskip("jax", reason="fused attention is chosen for JAX")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "benchmarks",
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_fused_attention_that_fails_or_is_wrong_is_detected():
    """Without cuDNN, Keras rejects fused attention if it is requested, and uses plain attention otherwise."""
    refused, wrong, broken, chosen = json.loads(attention(FAULTS))
    assert "cuDNN" in refused
    assert wrong.startswith("its gradient of q differs by 0.1")
    assert broken.startswith("its gradient of q differs by nan")
    assert chosen == ""


FAULTS = """
import json
from functools import partial
from keras.ops import nn
from jax_training import attention_fault

def times(factor):
    def attend(q, k, v, flash_attention=None):
        attended = nn.dot_product_attention(q, k, v, flash_attention=flash_attention)
        return attended if flash_attention is False else attended * factor
    return attend

fused = partial(nn.dot_product_attention, flash_attention=True)
print(json.dumps([
    attention_fault(attend, batch=2, tokens=5, queries=queries, heads=2, size=4, dtype="bfloat16")
    for attend, queries in ((fused, 5), (times(1.1), 5), (times(float("nan")), 1), (nn.dot_product_attention, 1))
]))
"""


@pytest.mark.slow
def test_the_model_uses_plain_attention_if_fused_attention_fails():
    assert attention(FALLBACK).splitlines()[-1] == "plain attention (8, 3)"


# Keras chooses fused attention where it may, as on a GPU, and cuDNN is missing, so the model would raise.
FALLBACK = """
import numpy as np
from keras.ops import nn

keras_choice = nn.dot_product_attention
nn.dot_product_attention = lambda q, k, v, flash_attention=None: keras_choice(
    q, k, v, flash_attention=True if flash_attention is None else flash_attention
)

from jax_training import Recipe
from train_accelerator import settings

images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
tiny = ["model.image_size=8", "model.depth=1", "model.width=8", "model.heads=2", "training.batch_size=8"]
recipe = Recipe(*settings("cifar10", tiny), {"train": (images, np.arange(8, dtype=np.int32) % 3)})
print(recipe.attention, recipe.model(images).shape)
"""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epochs", "0"], "--epochs 0 is not between 1 and 200"),
        (["--set", "training.epochs=0"], "training.epochs: Input should be greater than 0, not 0"),
        (["--set", "model.depht=1"], "model.depht: Extra inputs are not permitted, not 1"),
        (["--set", "optimizer.rate=1"], "the group must be one of model, augment, training"),
        (["--set", "training.epochs=2"], "warmup_epochs 10 must be less than epochs 2"),
        (["--out", "missing/results.jsonl"], "there is no folder missing"),
        (["--save", "vit.h5"], "vit.h5 does not end in .npz"),
        (["--save", "vit.npz", "--seeds", "2"], "--save stores the weights of one training, not of 2"),
        (["--preset", "cifra10"], "invalid choice: 'cifra10'"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_trained(arguments, message, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(sys, "argv", ["train_accelerator.py", "missing.npz", *arguments])
    with pytest.raises(SystemExit) as refused:
        train_accelerator.main()
    assert message in capsys.readouterr().err + str(refused.value)


def test_data_other_than_packed_images_is_rejected(tmp_path):
    np.savez(tmp_path / "other.npz", labels=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK" + bytes(100))
    for name in ("other.npz", "broken.npz", "missing.npz"):
        with pytest.raises(SystemExit, match=rf"{name} holds no packed images"):
            packed.load(tmp_path / name)


def test_another_backend_is_rejected(images):
    refused = run(images, backend="tensorflow")
    assert refused.returncode == 1
    assert "needs KERAS_BACKEND=jax" in refused.stderr


def test_packages_to_carry_match_the_lock():
    """Every package that `gpu.sh` selects has one version and its hashes."""
    script = (ROOT / "benchmarks" / "gpu.sh").read_text()
    awk = script[script.index("awk '") : script.index(' > "$scratch/requirements.txt"')]
    picked = subprocess.run(["sh", "-c", awk], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [line.partition("==")[0] for line in picked.splitlines() if "==" in line]
    assert names == [
        "annotated-types",
        "keras",
        "namex",
        "optree",
        "pydantic",
        "pydantic-core",
        "typing-extensions",
        "typing-inspection",
    ]
    assert picked.count("--hash=sha256:") >= 2 * len(names)

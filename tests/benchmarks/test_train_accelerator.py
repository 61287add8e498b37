import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TINY = [
    "model.image_size=8", "model.depth=1", "model.width=8", "model.heads=2",
    "training.warmup_epochs=0", "training.ema_epochs=1",
]  # fmt: skip


@pytest.fixture
def packed(tmp_path):
    """40 images of 8x8 pixels as `--pack` writes them: 24 of train, 8 of val, 8 of test."""
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
    return subprocess.run(
        [sys.executable, "benchmarks/train_accelerator.py", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip


def test_two_seeds_train_and_are_written_down(packed, tmp_path):
    pytest.importorskip("jax", reason="an epoch is one jax.lax.scan")
    overrides = [part for override in TINY for part in ("--set", override)]
    out = tmp_path / "results.jsonl"
    done = run(packed, "--seeds", 2, "--epochs", 2, "--batch-size", 8, "--peak-tflops", 1, "--out", out, *overrides)
    assert done.returncode == 0, done.stderr
    assert "over 2 seeds, the weights that were best on val" in done.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    assert all(0 <= row["test_accuracy"] <= 1 and row["epoch"] in (1, 2) for row in rows)


def test_another_backend_is_refused(packed):
    refused = run(packed, backend="tensorflow")
    assert refused.returncode == 1
    assert "needs KERAS_BACKEND=jax" in refused.stderr

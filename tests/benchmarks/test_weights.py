import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import weights

from trainer.vit import ViT


def vit(width=8):
    model = ViT(image_size=8, depth=2, width=width, heads=2, classes=3, pool="seqpool", mean=(1, 2, 3), std=(4, 5, 6))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    return model


def test_a_model_is_rebuilt_bit_for_bit(tmp_path):
    model = vit()
    digest = weights.save(model, tmp_path / "vit.npz")
    again = weights.load(tmp_path / "vit.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["vit.npz"]
    assert weights.digest(again) == digest == weights.digest(model)
    images = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3))
    np.testing.assert_array_equal(again(images), model(images))


def test_large_weights_are_split_into_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PART_BYTES", 2000)
    digest = weights.save(vit(), tmp_path / "vit.npz")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) > 2 and {"vit.npz", "vit-2.npz", "vit-3.npz"} <= {*files}
    assert weights.digest(weights.load(tmp_path / "vit.npz")) == digest
    (tmp_path / "vit-2.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"vit-2\.npz"):
        weights.load(tmp_path / "vit.npz")


def test_files_of_the_preset_s_model_fit_the_limit(tmp_path):
    weights.save(ViT(), tmp_path / "vit.npz")
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2 and max(sizes) < 16 * 2**20 < sum(sizes)


def test_a_changed_bit_is_detected(tmp_path):
    weights.save(vit(), tmp_path / "vit.npz")
    with np.load(tmp_path / "vit.npz") as file:
        arrays = dict(file)
    arrays["block_01/mlp_in/kernel"].view(np.uint32)[0, 0] ^= 1
    np.savez(tmp_path / "vit.npz", **arrays)
    with pytest.raises(ValueError, match="have the digest"):
        weights.load(tmp_path / "vit.npz")


def test_another_file_is_rejected(tmp_path):
    np.savez(tmp_path / "other.npz", labels=np.zeros(3))
    with pytest.raises(ValueError, match="holds no saved weights"):
        weights.load(tmp_path / "other.npz")

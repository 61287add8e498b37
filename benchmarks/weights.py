"""Weights of a ViT in files of at most 15 MiB that numpy alone can read.

This command writes them as a Keras model:

    KERAS_BACKEND=tensorflow PYTHONPATH=. python benchmarks/weights.py best.npz best.keras

The pipeline tests and pushes that model without training:

    vitpipe finetune --from best.keras -c cifar10 --set finetune.head_epochs=0 --set finetune.epochs=0
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from trainer.vit import ViT

PART_BYTES = 15 * 2**20
HEADER = "vit"  # entry of the first file, as JSON: the arguments of ViT, the number of files and the digest


def save(model: ViT, path: Path) -> str:
    """Write a model's float32 weights by their names, and the configuration from which `load` rebuilds the model.

    Args:
        model: The model to save.
        path: The first file, `NAME.npz`. If the weights exceed 15 MiB, the rest is in `NAME-2.npz`, `NAME-3.npz` and so
            on.

    Returns:
        The digest of the weights, see `digest`.
    """
    parts: list[dict[str, np.ndarray]] = [{}]
    for name, array in arrays(model).items():
        if parts[-1] and sum(other.nbytes for other in parts[-1].values()) + array.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = array
    header = {"model": model.config, "files": len(parts), "sha256": digest(model)}
    parts[0][HEADER] = np.array(json.dumps(header))
    for number, part in enumerate(parts, 1):
        np.savez(part_path(path, number), **part)
    return header["sha256"]


def load(path: Path) -> ViT:
    """Build the model that `save` wrote to `path`, in float32, and check its weights bit by bit.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the files hold no saved weights, or the weights differ from the saved ones.
    """
    with np.load(path, allow_pickle=False) as part:
        if HEADER not in part:
            raise ValueError(f"{path} holds no saved weights: use the first file that --save wrote")
        header = json.loads(str(part[HEADER]))
    stored: dict[str, np.ndarray] = {}
    for number in range(1, header["files"] + 1):
        with np.load(part_path(path, number), allow_pickle=False) as part:
            stored |= part
    model = ViT.from_config(header["model"])
    for weight, name in zip(model.weights, arrays(model), strict=True):
        if name not in stored:
            raise ValueError(
                f"{path} and the files after it lack the weight {name}: copy all {header['files']} files again"
            )
        weight.assign(stored[name])
    if digest(model) != header["sha256"]:
        raise ValueError(
            f"the weights in {path} have the digest {digest(model)}, but {header['sha256']} was saved: copy all "
            f"{header['files']} files again"
        )
    return model


def digest(model: ViT) -> str:
    """Return the SHA-256 of the names, shapes and bytes of all weights, in the model's order."""
    sha256 = hashlib.sha256()
    for name, array in arrays(model).items():
        sha256.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def arrays(model: ViT) -> dict[str, np.ndarray]:
    """Return every weight by its path within the model, such as `block_00/qkv/kernel`."""
    return {weight.path.partition(f"{model.name}/")[2]: np.asarray(weight) for weight in model.weights}


def part_path(path: Path, number: int) -> Path:
    """Return the path of a file, numbered from 1, from the path of the first file."""
    return path if number == 1 else path.with_name(f"{path.stem}-{number}.npz")


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    load(source).save(target)

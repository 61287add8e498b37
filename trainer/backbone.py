"""Loading of a pretrained ViT for fine-tuning, from any of the supported sources."""

import hashlib
import json
import math
from pathlib import Path

import h5py
import numpy as np

from trainer import serving
from trainer.hub import load_hub
from trainer.saved_model import open_saved_model
from trainer.settings import FinetuneSettings, ModelSettings
from trainer.train import build_vit
from trainer.vit import ViT

WEIGHTS = ".weights.h5"
HUB = "hub:"  # prefix of the name of a KerasHub preset
PRESET = "config.json"  # file in the folder of a KerasHub preset


def load_backbone(source: str, model: ModelSettings | None = None, finetune: FinetuneSettings | None = None) -> ViT:
    """Load a pretrained ViT.

    Args:
        source: One of these: a folder with a SavedModel that `trainer.serving.export` wrote; a `.keras` file with a
            `trainer.vit.ViT`; a `.weights.h5` file with the weights of a `trainer.vit.ViT`; the folder of a KerasHub
            preset; or `hub:` and the name of a KerasHub preset.
        model: Sizes of the model in a `.weights.h5` file, which does not contain them. The image size is read from the
            file instead. Other sources ignore this argument.
        finetune: Mean and standard deviation with which the model of a `.weights.h5` file normalised pixels. Other
            sources ignore this argument.

    Returns:
        The ViT.

    Raises:
        FileNotFoundError: If nothing exists at `source`, or a SavedModel lacks its Keras model.
        ValueError: If the source cannot be read, is not such a ViT, or has values that are not finite.
        ImportError: If the source is a preset and KerasHub is not installed.
    """
    backbone = _read(source, model or ModelSettings(), finetune or FinetuneSettings())
    arrays = [backbone.config["mean"], backbone.config["std"], *backbone.get_weights()]
    if not all(np.isfinite(array).all() for array in arrays) or min(backbone.config["std"]) <= 0:
        raise ValueError(
            f"{source} has weights, a mean or a std that are not finite, or a std of 0: use another backbone"
        )
    return backbone


def class_names(source: str) -> list[str]:
    """Return the class names of a source, in index order; empty if it does not record them.

    Only a SavedModel records them.

    Args:
        source: Source as for `load_backbone`.

    Raises:
        ValueError: If the SavedModel does not load.
    """
    path = Path(source)
    if not path.is_dir() or (path / PRESET).is_file():
        return []
    return serving.class_names(open_saved_model(path, serving_default="examples").signatures["serving_default"])


def digest(backbone: ViT) -> str:
    """Return the sha256 of everything that decides what a ViT computes: its sizes, normalisation and weights."""
    sha256 = hashlib.sha256(json.dumps(backbone.config, sort_keys=True).encode())
    for weight in backbone.get_weights():
        sha256.update(weight.tobytes())
    return sha256.hexdigest()


def _read(source: str, model: ModelSettings, finetune: FinetuneSettings) -> ViT:
    path = Path(source)
    if source.startswith(HUB) or (path / PRESET).is_file():
        return load_hub(source.removeprefix(HUB))
    if path.is_dir():
        return serving.load_vit(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"{source}: no such backbone: use a SavedModel folder, a .keras or {WEIGHTS} file, or a preset"
        )
    if source.endswith(WEIGHTS):
        return _load_weights(path, model, finetune)
    if path.suffix != ".keras":
        raise ValueError(f"{source} is neither a .keras nor a {WEIGHTS} file: use a file of one of these kinds")
    return serving.read_vit(path)


def _load_weights(file: Path, model: ModelSettings, finetune: FinetuneSettings) -> ViT:
    """Build the ViT of a `.weights.h5` file; the shapes of its arrays give the number of classes and the image size."""
    if finetune.pixel_mean is None or finetune.pixel_std is None:
        raise ValueError(
            f"{file} does not say how its model normalised pixels: set finetune.pixel_mean and finetune.pixel_std, in "
            "units of 0 to 255, for example [127.5, 127.5, 127.5] for both"
        )
    try:
        with h5py.File(file) as archive:
            [classes] = archive["head/vars/1"].shape
            has_cls = model.pool == "cls"
            # The variables of this layer are the CLS token, if there is one, and the positions.
            _, tokens, _ = archive[f"layers/tokens/vars/{int(has_cls)}"].shape
        size = math.isqrt(tokens - has_cls) * model.patch_size
        backbone = build_vit(
            model.model_copy(update={"image_size": size, "mimetic": False}),
            classes,
            finetune.pixel_mean,
            finetune.pixel_std,
        )
        backbone.load_weights(file)
    except Exception as error:  # h5py and Keras raise many types for files that are not HDF5 or of another model
        raise ValueError(
            f"{file} does not hold the weights of a ViT of model.depth {model.depth}, width {model.width}, patch_size "
            f"{model.patch_size}, mlp_ratio {model.mlp_ratio}, pool {model.pool} and conv_stem {model.conv_stem}: set "
            f"the values that the backbone was trained with ({str(error).splitlines()[0]})"
        ) from error
    return backbone

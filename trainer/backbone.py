"""What a fine-tuning starts from: a pretrained ViT, wherever it comes from."""

import hashlib
import json
import math
from pathlib import Path

import h5py
import numpy as np

from trainer import serving
from trainer.hub import load_hub
from trainer.settings import FinetuneSettings, ModelSettings
from trainer.train import vit
from trainer.vit import ViT

WEIGHTS = ".weights.h5"
HUB = "hub:"  # before the name of a KerasHub preset
PRESET = "config.json"  # in the folder of one


def load_backbone(source: str, model: ModelSettings | None = None, finetune: FinetuneSettings | None = None) -> ViT:
    """The ViT of `source`, which is one of these.

    A folder with a SavedModel that `trainer.serving.export` wrote; a `.keras` file with a ViT of ours; a `.weights.h5`
    file of such a model, whose sizes but for that of images are those of `model` and whose pixels were normalised as
    `finetune` says; the folder of a KerasHub preset, or `hub:` and the name of one.

    Raises FileNotFoundError where there is none, ValueError for what cannot be read, is no such ViT or is not finite,
    ImportError for a preset where KerasHub is not installed.
    """
    backbone = _read(source, model or ModelSettings(), finetune or FinetuneSettings())
    numbers = [backbone.config["mean"], backbone.config["std"], *backbone.get_weights()]
    if not all(np.isfinite(some).all() for some in numbers) or min(backbone.config["std"]) <= 0:
        raise ValueError(f"{source} has weights, a mean or a std that are not finite, or a std of 0: name another")
    return backbone


def digest(backbone: ViT) -> str:
    """sha256 of what it computes: its sizes, normalisation and weights."""
    found = hashlib.sha256(json.dumps(backbone.config, sort_keys=True).encode())
    for weight in backbone.get_weights():
        found.update(weight.tobytes())
    return found.hexdigest()


def _read(source: str, model: ModelSettings, finetune: FinetuneSettings) -> ViT:
    path = Path(source)
    if source.startswith(HUB) or (path / PRESET).is_file():
        return load_hub(source.removeprefix(HUB))
    if path.is_dir():
        return serving.load_vit(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"{source}: no such backbone: name a SavedModel folder, a .keras or {WEIGHTS} file, or a preset"
        )
    if source.endswith(WEIGHTS):
        return _of_weights(path, model, finetune)
    if path.suffix != ".keras":
        raise ValueError(f"{source} is neither a .keras nor a {WEIGHTS} file: name one")
    return serving.read_vit(path)


def _of_weights(file: Path, model: ModelSettings, finetune: FinetuneSettings) -> ViT:
    if finetune.pixel_mean is None or finetune.pixel_std is None:
        raise ValueError(
            f"{file} does not say how its model normalised pixels: set finetune.pixel_mean and finetune.pixel_std, in "
            "units of 0 to 255, for example [127.5, 127.5, 127.5] for both"
        )
    try:
        with h5py.File(file) as opened:
            [classes] = opened["head/vars/1"].shape
            has_cls = model.pool == "cls"
            _, tokens, _ = opened[f"layers/tokens/vars/{int(has_cls)}"].shape  # of the positions
        size = math.isqrt(tokens - has_cls) * model.patch_size
        backbone = vit(
            model.model_copy(update={"image_size": size, "mimetic": False}),
            classes,
            finetune.pixel_mean,
            finetune.pixel_std,
        )
        backbone.load_weights(file)
    except Exception as error:  # what a file that is no HDF5, or of another model, makes h5py and Keras raise
        raise ValueError(
            f"{file} does not hold the weights of a ViT of model.depth {model.depth}, width {model.width}, patch_size "
            f"{model.patch_size}, mlp_ratio {model.mlp_ratio}, pool {model.pool} and conv_stem {model.conv_stem}: set "
            f"those it was trained with ({str(error).splitlines()[0]})"
        ) from error
    return backbone

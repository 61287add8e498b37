"""What a warm start would take over, and whether it can, before anything is computed."""

import json
import zipfile
from pathlib import Path
from typing import Any

from components import ingest
from components.ingest import manifest
from components.serving_folder import serving_now
from pipeline.config import Settings, SettingsError
from trainer.warm_start import WarmStart, compare_classes

# Settings of the model that must be those of the one it starts from. Positions are resized to another image_size.
_EQUAL = ("patch_size", "depth", "width", "heads", "mlp_ratio", "head", "conv_stem")
_KERAS_MODEL = "assets.extra/vit.keras"  # `trainer.serving.KERAS_MODEL`, which would import TensorFlow


def plan(settings: Settings, span: int) -> WarmStart | None:
    """Return what a training on a span would take over from the model serving now; None if it starts from scratch.

    Raises SettingsError if that model has another architecture than the settings, or no record of what it is.
    """
    serving = settings.folder / "serving"
    try:
        served = serving_now(serving) if settings.training.warm_start else None
    except ValueError as error:
        raise SettingsError(f"training.warm_start: {error}") from None
    if served is None:
        return None
    theirs = _architecture(serving / str(served.version) / _KERAS_MODEL)
    differing = [
        f"{name} {theirs[name]}, not {ours}"
        for name in _EQUAL
        if name in theirs and theirs[name] != (ours := getattr(settings.model, name))
    ]
    if differing:
        raise SettingsError(
            f"training.warm_start cannot start from version {served.version} in {serving}, which has "
            f"{'; '.join(differing)}: take its settings of the model, or --set training.warm_start=false"
        )
    names = manifest.read(ingest.span_folder(settings.data.dir, span)).class_names
    return compare_classes(served.classes, [*names], served.version)


def _architecture(file: Path) -> dict[str, Any]:
    """Return the configuration in a `.keras` file, an archive; empty if it has none, which the Trainer reports."""
    try:
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read("config.json"))["config"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return {}

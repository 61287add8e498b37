"""Plan of a warm start, checked before the training starts."""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from components.data import ingest
from components.data.ingest import manifest
from components.errors import SettingsError
from components.model.serving_folder import serving_now
from pipeline.metadata import relocation
from pipeline.settings import Settings
from trainer.settings import current_names
from trainer.warm_start import WarmStart, compare_classes

# Settings that must equal those of the serving model. image_size may differ: position embeddings are resized.
_EQUAL = ("patch_size", "depth", "width", "heads", "mlp_ratio", "pool", "conv_stem")
_KERAS_MODEL = "assets.extra/vit.keras"  # `trainer.serving.KERAS_MODEL`, which would import TensorFlow

_MAX_CONFIG = 2**20  # bytes of a model's configuration; a ViT has 2 KiB

# Errors of zipfile and json for a damaged file.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
)


def plan(settings: Settings, span: int) -> WarmStart | None:
    """Return what a training would take over from the model serving now; None if it starts from scratch.

    Args:
        settings: the settings of the run.
        span: the span to train on.

    Raises:
        SettingsError: if the serving model has no record, its files are gone, or its architecture differs from the
            settings.
    """
    serving = settings.folder / "serving"
    try:
        served = serving_now(serving) if settings.training.warm_start else None
    except ValueError as error:
        raise SettingsError(f"training.warm_start: {error}") from None
    if served is None:
        return None
    artifact = Path(relocation.current_uri(served.model.uri, settings.folder.resolve()))
    if artifact.is_absolute() and not artifact.is_dir():
        raise SettingsError(
            f"training.warm_start cannot start from version {served.version} in {serving}: its artifact {artifact} is "
            "gone. To train from scratch, --set training.warm_start=false"
        )
    theirs = _architecture(serving / str(served.version) / _KERAS_MODEL)
    differing = [
        f"{name} {theirs[name]!s:.40}, not {ours}"
        for name in _EQUAL
        if name in theirs and theirs[name] != (ours := getattr(settings.model, name))
    ]
    if differing:
        raise SettingsError(
            f"training.warm_start cannot start from version {served.version} in {serving}, which has "
            f"{'; '.join(differing)}: use its model settings, or --set training.warm_start=false"
        )
    names = manifest.read(ingest.span_folder(settings.data.dir, span)).class_names
    return compare_classes(served.classes, [*names], served.version)


def _architecture(file: Path) -> dict[str, Any]:
    """Return the model's configuration in a `.keras` file; empty if it has none, which the Trainer reports."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open("config.json") as content:
            config = json.loads(content.read(_MAX_CONFIG))["config"]
    except _DAMAGED:
        return {}
    return current_names(config) if isinstance(config, dict) else {}

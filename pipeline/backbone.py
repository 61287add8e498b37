"""Location of the backbone of a fine-tuning, and the sizes that it sets for the model."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from components.data.ingest import safe_files
from components.errors import DataRefused, SettingsError
from components.model.serving_folder import versions
from components.suggestions import did_you_mean
from pipeline.settings import Settings
from trainer.backbone import HUB, PRESET, WEIGHTS, class_names, load_backbone
from trainer.finetune import OWN, check_accepted
from trainer.serving import KERAS_MODEL
from trainer.settings import SIZES, FinetuneSettings, ModelSettings
from trainer.vit import ViT

# Training settings that each phase of a fine-tuning replaces by its own.
_PHASE_SETTINGS = {"epochs", "learning_rate", "warmup_epochs", "final_learning_rate", "weight_decay"}


def fit_to_backbone(settings: Settings, flags: Sequence[str] = ()) -> Settings:
    """Resolve `finetune.source`, and copy the architecture of the backbone into the settings of the model.

    Args:
        settings: the settings of a run.
        flags: the settings `a.b=c` that a user gave for this run. One that has no effect in a fine-tuning is an error,
            whereas such a setting in a preset is ignored.

    Returns:
        The new settings; `settings` itself if no backbone is set.

    Raises:
        SettingsError: if there is no such backbone, it does not fit the settings, or a flag has no effect.
        DataRefused: if the backbone cannot be read.
    """
    if not settings.finetune.source:
        return settings
    source = locate(settings.finetune.source, settings.runs)
    if not source.endswith(WEIGHTS) and (settings.finetune.pixel_mean or settings.finetune.pixel_std):
        raise SettingsError(
            f"finetune.pixel_mean and finetune.pixel_std are for a {WEIGHTS} file; {source} already defines how "
            "its model normalises pixels: leave them out"
        )
    backbone = read_backbone(source, settings.model, settings.finetune)
    own_names = OWN if settings.finetune.trains else set()  # a model that is accepted as it is decides everything
    sizes = {
        key: backbone.config[key] for key in ModelSettings.model_fields.keys() & backbone.config.keys() - own_names
    }
    own = settings.model.model_dump(include=own_names)
    try:
        model = ModelSettings.model_validate({**sizes, **own, "mimetic": False})
    except ValidationError as error:
        raise SettingsError(f"{source} does not fit the model's settings: {error.errors()[0]['msg']}") from None
    for flag in flags:
        group, _, name = flag.partition("=")[0].partition(".")
        if group == "training" and name in _PHASE_SETTINGS:
            raise SettingsError(
                f"--set {flag}: it has no effect in a fine-tuning, whose phases have settings of their own: set for "
                "example finetune.head_epochs and finetune.epochs"
            )
        for key in SIZES["tiny"] if name == "size" else [name]:
            if group == "model" and key in sizes and getattr(settings.model, key) != getattr(model, key):
                raise SettingsError(
                    f"--set {flag}: the backbone determines {key}, which is {getattr(model, key)}: leave it out"
                )
    finetune = settings.finetune.model_copy(update={"source": source})
    return settings.model_copy(update={"finetune": finetune, "model": model})


def check_classes(settings: Settings, names: Sequence[str]) -> None:
    """Check that a backbone that is accepted without training has the classes of the data.

    Args:
        settings: the settings of the run, from `fit_to_backbone`.
        names: class names of the data, in index order.

    Raises:
        SettingsError: if it has other classes, or is a preset of KerasHub, whose head is not kept.
        DataRefused: if the backbone cannot be read.
    """
    source = settings.finetune.source
    if source.startswith(HUB) or (Path(source) / PRESET).is_file():
        raise SettingsError(f"{source} has no head for the classes of the data: train one with finetune.head_epochs")
    backbone = read_backbone(source, settings.model, settings.finetune)
    try:
        check_accepted(backbone, class_names(source), [*names])
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None


def read_backbone(source: str, model: ModelSettings, finetune: FinetuneSettings) -> ViT:
    """Load a backbone with `trainer.backbone.load_backbone`.

    Args:
        source: a located source, from `locate`.
        model: settings of the model.
        finetune: settings of the fine-tuning.

    Raises:
        DataRefused: if the source cannot be read, or holds no backbone.
        SettingsError: if a package that the source needs is not installed.
    """
    try:
        return load_backbone(source, model, finetune)
    except (FileNotFoundError, ValueError) as error:
        raise DataRefused(str(error)) from None
    except ImportError as error:
        raise SettingsError(str(error)) from None


def locate(source: str, runs: Path) -> str:
    """Return the source of a backbone in the form that `trainer.backbone.load_backbone` takes.

    Args:
        source: a source as the user names it. The name or folder of a pipeline means the model that it serves now.
        runs: folder of the run folders.

    Returns:
        An absolute path, or a preset of a hub unchanged.

    Raises:
        SettingsError: if there is no such source.
    """
    if source.startswith(HUB):
        return source
    path = Path(source).expanduser()
    for folder in (path, runs / source):
        if pushed := versions(folder / "serving"):
            return str((folder / "serving" / str(pushed[-1])).resolve())
    if path.is_file() or any((path / name).is_file() for name in (KERAS_MODEL, PRESET)):
        return str(path.resolve())
    names = sorted(folder.parent.name for folder in runs.glob("*/serving"))
    raise SettingsError(
        f"no backbone {source}: {did_you_mean(source, names)}name a pipeline below {runs} that has pushed a model, "
        f"one of its version folders, a .keras or {WEIGHTS} file, the folder of a KerasHub preset, or {HUB}PRESET"
    )


def content(source: str) -> str:
    """Return the sha256 of the files of a located source; empty if they are not on this machine."""
    path = Path(source)
    files = [path] if path.is_file() else [path / KERAS_MODEL]
    if (path / PRESET).is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            return ""
        digest.update(bytes.fromhex(safe_files.file_digest(file, follow_link=True)))
    return digest.hexdigest()

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
from trainer.backbone import HUB, PRESET, WEIGHTS, load_backbone
from trainer.finetune import OWN
from trainer.serving import KERAS_MODEL
from trainer.settings import SIZES, FinetuneSettings, ModelSettings
from trainer.vit import ViT

# What of the training settings each phase has of its own.
_OF_PHASES = {"epochs", "learning_rate", "warmup_epochs", "final_learning_rate", "weight_decay"}


def fit_to_backbone(settings: Settings, flags: Sequence[str] = ()) -> Settings:
    """The settings with the backbone's source located, and its sizes as the model's; as they are where there is none.

    flags: the `a.b=c` that a person gave for this run. What a preset says and a fine-tuning has no use for is passed
    over; a person who says it means it.

    Raises SettingsError where there is no such backbone, or it does not fit, or a flag would have no effect,
    DataRefused where it cannot be read.
    """
    if not settings.finetune.source:
        return settings
    source = locate(settings.finetune.source, settings.runs)
    if not source.endswith(WEIGHTS) and (settings.finetune.pixel_mean or settings.finetune.pixel_std):
        raise SettingsError(
            f"finetune.pixel_mean and finetune.pixel_std are for a {WEIGHTS} file; {source} says itself how its model "
            "normalised pixels: leave them out"
        )
    backbone = read_backbone(source, settings.model, settings.finetune)
    sizes = {key: backbone.config[key] for key in ModelSettings.model_fields.keys() & backbone.config.keys() - OWN}
    own = settings.model.model_dump(include=OWN)
    try:
        model = ModelSettings.model_validate({**sizes, **own, "mimetic": False})
    except ValidationError as error:
        raise SettingsError(f"{source} does not fit the model's settings: {error.errors()[0]['msg']}") from None
    for flag in flags:
        group, _, name = flag.partition("=")[0].partition(".")
        if group == "training" and name in _OF_PHASES:
            raise SettingsError(
                f"--set {flag}: each phase of a fine-tuning has its own, such as finetune.head_epochs and "
                "finetune.epochs: set those"
            )
        for key in SIZES["tiny"] if name == "size" else [name]:
            if group == "model" and key in sizes and getattr(settings.model, key) != getattr(model, key):
                raise SettingsError(f"--set {flag}: {key} is the backbone's, {getattr(model, key)}: leave it out")
    finetune = settings.finetune.model_copy(update={"source": source})
    return settings.model_copy(update={"finetune": finetune, "model": model})


def read_backbone(source: str, model: ModelSettings, finetune: FinetuneSettings) -> ViT:
    """`trainer.backbone.load_backbone`, with its errors as the command says them: DataRefused and SettingsError."""
    try:
        return load_backbone(source, model, finetune)
    except (FileNotFoundError, ValueError) as error:
        raise DataRefused(str(error)) from None
    except ImportError as error:
        raise SettingsError(str(error)) from None


def locate(source: str, runs: Path) -> str:
    """What `trainer.backbone.load_backbone` takes, of what a person names; a path comes out absolute.

    That may also be a pipeline below `runs`, by its name or its folder: the model that it serves now.
    Raises SettingsError where there is no such thing.
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
    """sha256 of the files of a located source; empty where they are not here."""
    path = Path(source)
    files = [path] if path.is_file() else [path / KERAS_MODEL]
    if (path / PRESET).is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    found = hashlib.sha256()
    for file in files:
        if not file.is_file():
            return ""
        found.update(bytes.fromhex(safe_files.file_digest(file, follow_link=True)))
    return found.hexdigest()

"""Settings of a tuning, and those of a training with its result, checked before the run starts."""

from pathlib import Path
from typing import Any

from components.errors import SettingsError
from components.model.tuning_record import ARTIFACT, SPACE, VALUES, space_text
from pipeline.metadata.address import NoStoreError
from pipeline.metadata.properties import read
from pipeline.metadata.reader import reader
from pipeline.settings import Settings
from trainer.search_space import TrialSettings, apply, check_fit


def settings_to_tune(settings: Settings) -> Settings:
    """Return the settings from which a tuning starts, which are those without the result of an earlier tuning.

    Raises:
        SettingsError: if there is nothing to search, or the training would not start from scratch.
    """
    if not settings.tune.space.dimensions():
        raise SettingsError(
            "tune.space is empty: name the settings to search, for example --set "
            "tune.space.training.learning_rate='{low: 1e-4, high: 1e-2, log: true}'"
        )
    if settings.finetune.source or settings.training.warm_start:
        key = "finetune.source" if settings.finetune.source else "training.warm_start"
        off = "''" if settings.finetune.source else "false"
        raise SettingsError(f"{key} is set, but the trials of a tuning train from scratch: --set {key}={off}")
    try:
        check_fit(settings.tune, TrialSettings(settings.model, settings.augment, settings.training))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return settings.model_copy(update={"training": settings.training.model_copy(update={"tuned": False})})


def tuned_settings(settings: Settings) -> Settings:
    """Return settings with the values of the newest tuning of the pipeline that searched the same space.

    Raises:
        SettingsError: if there is no such tuning, or the settings do not accept its values.
    """
    root, space = settings.folder / "root", space_text(settings.tune)
    try:
        with reader(settings.store) as store:
            tunings = store.artifacts(ARTIFACT, "live")  # the newest first
    except NoStoreError:  # the first run creates the store
        tunings = []
    for tuning in tunings:
        if (
            Path(tuning.uri).is_relative_to(root)
            and Path(tuning.uri).is_dir()
            and tuning.properties.get(SPACE) == space
        ):
            values = read(tuning.properties, VALUES, dict[str, Any])
            break
    else:
        raise SettingsError(
            f"training.tuned is set, but no tuning of {settings.name} has searched this tune.space: run `vitpipe tune` "
            "with the same settings first, or --set training.tuned=false"
        )
    try:
        parts = apply(values, TrialSettings(settings.model, settings.augment, settings.training))
    except ValueError as error:
        raise SettingsError(
            f"training.tuned: the settings do not accept the values of the tuning {tuning.id}: {error}. Run `vitpipe "
            "tune` again"
        ) from None
    return settings.model_copy(update=parts._asdict())

import math

import pytest
from pydantic import ValidationError

from trainer.search_space import SpaceSettings, TrialSettings, TuneSettings, apply, check_fit, check_space, shorten
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings

SETTINGS = TrialSettings(
    ModelSettings(), AugmentSettings(), TrainingSettings(epochs=40, warmup_epochs=4, ema_epochs=2, patience=8)
)


def tune(space):
    return TuneSettings(space=space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"training": {"learning_rat": {"low": 1, "high": 2}}}, "the group training has no setting learning_rat"),
        ({"training": {"learning_rate": {"low": 1e-3, "high": 2000}}}, "learning_rate: 2000.0 is not possible"),
        ({"training": {"optimizer": {"choices": ["adamw", "adam"]}}}, "optimizer: 'adam' is not possible"),
        ({"augment": {"flip": {"low": 0, "high": 1}}}, r"list its values as {choices: \[...\]}"),
        ({"model": {"depth": {"low": 1.5, "high": 4}}}, "must be whole numbers"),
        ({"model": {"width": {"low": 16, "high": 4096}}}, "4,081 values, but at most 1,000"),
        ({"model": {"image_size": {"choices": [32, 64]}}}, "the images are decoded once"),
        ({"augment": {"stored_size": {"choices": [40, 64]}}}, "the images are decoded once"),
        ({"training": {"seed": {"choices": [1, 2]}}}, "a seed that is lucky on val"),
        ({"training": {"epochs": {"low": 1, "high": 9}}}, "more epochs would nearly always win"),
    ],
)
def test_impossible_search_spaces_are_rejected(space, message):
    with pytest.raises(ValueError, match=message):
        check_space(tune(space))


@pytest.mark.parametrize(
    "dimension",
    [
        {},
        {"low": 1},
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": 1, "high": 2, "log": True, "step": 1},
        {"low": 0, "high": 1, "step": 0.3},
        {"low": 0, "high": 1, "choices": [0]},
        {"choices": [[0, 1]]},
        {"low": math.nan, "high": 1},
    ],
)
def test_malformed_dimensions_are_rejected(dimension):
    with pytest.raises(ValidationError):
        SpaceSettings(training={"learning_rate": dimension})


def test_values_must_fit_the_other_settings():
    heads = tune({"model": {"heads": {"low": 1, "high": 4}}})
    check_space(heads)
    with pytest.raises(ValueError, match="heads: 3 does not fit: width 256 is not a multiple of heads 3"):
        check_fit(heads, SETTINGS)


def test_a_space_reads_its_own_record_and_null_takes_a_setting_out():
    space = {"augment": {"flip": {"choices": [True, False]}}, "training": {"learning_rate": {"low": 1, "high": 2}}}
    settings = tune(space)
    assert TuneSettings.model_validate_json(settings.model_dump_json()) == settings
    assert list(settings.space.dimensions()) == ["augment.flip", "training.learning_rate"]
    space["training"]["learning_rate"] = None
    assert list(tune(space).space.dimensions()) == ["augment.flip"]


def test_values_are_applied_and_checked():
    changed = apply({"training.learning_rate": 0.5, "model.depth": 2}, SETTINGS)
    assert (changed.training.learning_rate, changed.model.depth, changed.augment) == (0.5, 2, SETTINGS.augment)
    for values in {"training.learning_rate": -1}, {"model.heads": 3}, {"gate.accuracy": 0}, {"depth": 1}:
        with pytest.raises(ValueError):
            apply(values, SETTINGS)


def test_a_shorter_trial_has_the_whole_schedule():
    short = shorten(SETTINGS.training.model_copy(update={"teacher_epochs": 6}), 10)
    assert (short.epochs, short.warmup_epochs, short.ema_epochs, short.patience) == (10, 1, 0.5, 2)
    assert short.teacher_epochs == 2
    assert shorten(SETTINGS.training, None) == shorten(SETTINGS.training, 50) == SETTINGS.training

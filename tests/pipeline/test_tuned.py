"""Checks of a tuning and of a tuned training before the run."""

import pytest

from components.errors import SettingsError
from pipeline.settings import load
from pipeline.tuned import settings_to_tune, tuned_settings


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["tune.space.training.learning_rate=null"], "tune.space is empty"),
        (["finetune.source=cifar10"], "finetune.source is set, but the trials"),
        (["training.warm_start=true"], "training.warm_start is set, but the trials"),
        (["tune.space.model.heads={low: 1, high: 4}"], "tune.space.model.heads: 3 does not fit"),
    ],
)
def test_what_cannot_be_searched_is_rejected(flags, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("tune: {space: {training: {learning_rate: {low: 0.001, high: 0.1}}}}")
    with pytest.raises(SettingsError, match=message):
        settings_to_tune(load(str(file), flags, {}))


def test_a_search_starts_without_the_result_of_an_earlier_one():
    assert not settings_to_tune(load("sample", ["training.tuned=true"], {})).training.tuned


def test_without_a_tuning_of_the_same_space_a_tuned_training_is_rejected(tmp_path):
    with pytest.raises(SettingsError, match="run `vitpipe tune` with the same settings first"):
        tuned_settings(load("sample", ["training.tuned=true", f"runs={tmp_path}"], {}))


def test_a_flag_or_variable_that_a_tuning_replaces_is_rejected():
    for flags, environment, origin in (
        (["training.learning_rate=1"], {}, "--set training.learning_rate"),
        ([], {"VITPIPE_TRAINING__LEARNING_RATE": "1"}, "VITPIPE_TRAINING__LEARNING_RATE"),
    ):
        with pytest.raises(SettingsError, match=f"^{origin}.*: with training.tuned, the tuning decides"):
            load("sample", ["training.tuned=true", *flags], environment)
    assert load("sample", ["training.tuned=true", "training.epochs=3"], {}).training.epochs == 3


def test_a_misspelled_setting_of_the_space_is_named():
    with pytest.raises(SettingsError, match=r"tune\.space\.training\.learning_rat: the group training has no setting"):
        load("sample", ["tune.space.training.learning_rat={low: 1, high: 2}"], {})


def test_fine_tuning_cannot_be_tuned():
    with pytest.raises(SettingsError, match=r"finetune\.source cifar10 and training\.tuned exclude each other"):
        load("sample", ["training.tuned=true", "finetune.source=cifar10"], {})

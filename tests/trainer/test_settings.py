import pytest
from pydantic import ValidationError

from trainer.settings import ModelSettings, TrainingSettings


def test_a_named_size_sets_depth_width_and_heads():
    small = ModelSettings(size="small")
    assert (small.depth, small.width, small.heads) == (8, 384, 6)
    assert ModelSettings.model_validate_json(small.model_dump_json()) == small


@pytest.mark.parametrize(
    ("group", "given", "message"),
    [
        (ModelSettings, {"size": "huge", "width": 64}, "size huge has width 1280, and width says 64"),
        (ModelSettings, {"patch_size": 3}, "image_size 32 is not a multiple of patch_size 3"),
        (ModelSettings, {"heads": 3}, "width 256 is not a multiple of heads 3"),
        (ModelSettings, {"image_size": 36, "patch_size": 6, "conv_stem": True}, "patch_size 6: make that a power"),
        (ModelSettings, {"width": 6, "heads": 2, "mimetic": True}, "width 6 a multiple of 4"),
        (TrainingSettings, {"batch_size": 33}, "batch_size 33 is not a multiple of 2"),
        (TrainingSettings, {"batch_size": 36, "accumulate": 4}, "batch_size 36 is not a multiple of 8"),
        (TrainingSettings, {"epochs": 5}, "warmup_epochs 10 must be less than epochs 5"),
        (ModelSettings, {"width": True}, "number, not true or false"),
        (TrainingSettings, {"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_invalid_settings_are_rejected_before_training(group, given, message):
    with pytest.raises(ValidationError, match=message):
        group(**given)

import pytest
from pydantic import ValidationError

from trainer.settings import ModelSettings, TrainingSettings


def test_a_size_gives_depth_width_and_heads_and_survives_the_way_to_the_trainer():
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
def test_what_cannot_be_trained_is_said_before_anything_runs(group, given, message):
    with pytest.raises(ValidationError, match=message):
        group(**given)

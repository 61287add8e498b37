import pytest
from pydantic import ValidationError

from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.sizes import check_stored_size

CROPS = {"crop_padding": 0, "resized_crop_scale": (0.08, 1)}


def test_a_size_sets_depth_width_and_heads_also_after_serialization():
    small = ModelSettings(size="small")
    assert (small.depth, small.width, small.heads) == (8, 384, 6)
    assert ModelSettings.model_validate_json(small.model_dump_json()) == small


@pytest.mark.parametrize(
    ("group", "given", "message"),
    [
        (ModelSettings, {"size": "huge", "width": 64}, "size huge sets width to 1280, but width is 64"),
        (ModelSettings, {"patch_size": 3}, "image_size 32 is not a multiple of patch_size 3"),
        (ModelSettings, {"heads": 3}, "width 256 is not a multiple of heads 3"),
        (ModelSettings, {"image_size": 36, "patch_size": 6, "conv_stem": True}, "patch_size 6 is not a power of two"),
        (ModelSettings, {"width": 6, "heads": 2, "mimetic": True}, "width 6 is not a multiple of 4"),
        (TrainingSettings, {"batch_size": 33}, "batch_size 33 is not a multiple of 2"),
        (TrainingSettings, {"batch_size": 36, "accumulate": 4}, "batch_size 36 is not a multiple of 8"),
        (TrainingSettings, {"patience": 3, "use_val": True}, "patience 3 compares accuracies on val"),
        (TrainingSettings, {"epochs": 5}, "warmup_epochs 10 must be less than epochs 5"),
        (AugmentSettings, {"resized_crop_scale": (0.08, 1)}, "crop_padding 4 must be 0 .* set crop_padding to 0"),
        (AugmentSettings, {"stored_size": 256}, "stored_size 256 needs resized crops: set resized_crop_scale"),
        (AugmentSettings, CROPS | {"resized_crop_scale": (1, 0.08)}, r"begin with the smaller .* write \[0.08, 1.0\]"),
        (AugmentSettings, CROPS | {"resized_crop_ratio": (2, 0.5)}, r"begin with the smaller .* write \[0.5, 2.0\]"),
        (AugmentSettings, CROPS | {"resized_crop_scale": (0.9, 1), "resized_crop_ratio": (2, 3)}, "no crop .* fits"),
        (AugmentSettings, CROPS | {"resized_crop_scale": (0, 1)}, "greater than 0"),
        (AugmentSettings, CROPS | {"resized_crop_scale": (0.5, 1.1)}, "less than or equal to 1"),
        (AugmentSettings, CROPS | {"resized_crop_ratio": (0.009, 1)}, "greater than or equal to 0.01"),
        (AugmentSettings, CROPS | {"resized_crop_ratio": (1, 101)}, "less than or equal to 100"),
        (AugmentSettings, CROPS | {"stored_size": 4097}, "less than or equal to 4096"),
        (AugmentSettings, {"colour_jitter": 1.1}, "less than or equal to 1"),
        (ModelSettings, {"width": True}, "number, not true or false"),
        (TrainingSettings, {"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_contradictory_settings_are_rejected(group, given, message):
    with pytest.raises(ValidationError, match=message):
        group(**given)


def test_settings_of_resized_crops_survive_serialization():
    crops = AugmentSettings(**CROPS, stored_size=256, resized_crop_ratio=(0.5, 2))
    assert crops.resized_crop_ratio == (0.5, 2.0)
    assert AugmentSettings.model_validate_json(crops.model_dump_json()) == crops


def test_images_are_not_kept_at_less_than_the_size_of_the_model():
    check_stored_size(None, 32)
    check_stored_size(32, 32)
    with pytest.raises(ValueError, match=r"augment.stored_size 31 is less than image_size 32: set it to 32 or more"):
        check_stored_size(31, 32)

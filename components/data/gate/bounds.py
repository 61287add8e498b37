"""Bounds that a span must satisfy before a model is trained on it, and the findings of the checks.

Every command imports this module, so it imports neither TFX nor NumPy.
"""

from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from trainer.settings import Group, SettingsGroup

_MAX_BOUND = 1e12  # more than the number of images of any data set
_NOT_NEGATIVE: JsonDict = {"minimum": 0, "maximum": _MAX_BOUND}  # enforced by `BoundsGroup.check_range`


class Bound(SettingsGroup):
    """Thresholds of one check: past `warn` it is reported, past `stop` the run ends."""

    warn: float | None = Field(
        None,
        description="The check is reported if its value is past this threshold. null: no warning.",
        json_schema_extra=_NOT_NEGATIVE,
    )
    stop: float | None = Field(
        None,
        description="The run ends if the value of the check is past this threshold. null: no stop.",
        json_schema_extra=_NOT_NEGATIVE,
    )

    @property
    def is_set(self) -> bool:
        """True if there is a threshold."""
        return self.warn is not None or self.stop is not None


class BoundsGroup(SettingsGroup):
    """Base class of groups of settings that contain thresholds of checks.

    A file or flag that sets only one threshold of a check leaves the other unchanged.
    """

    @model_validator(mode="before")
    @classmethod
    def fill_missing_thresholds(cls, values: Any) -> Any:
        """Complete a check that sets only one threshold with the default of the other."""
        if not isinstance(values, dict):
            return values
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {
            name: defaults[name].model_dump() | value
            if isinstance(value, dict) and isinstance(defaults.get(name), Bound)
            else value
            for name, value in values.items()
        }

    @model_validator(mode="after")
    def check_range(self) -> Self:
        """Reject a threshold that is negative, too large or not a number."""
        # `Bound` does not check this itself, because it also reads thresholds that earlier versions recorded.
        for name, check in self:
            for level, value in check.model_dump().items() if isinstance(check, Bound) else ():
                if value is not None and not 0 <= value <= _MAX_BOUND:
                    raise ValueError(
                        f"{name}.{level} {value:g} is not between 0 and {_MAX_BOUND:g}; write null to disable it"
                    )
        return self


class DataGateSettings(BoundsGroup):
    """Thresholds of the checks of the data gate.

    `image_side` and `class_examples` have lower bounds; all other checks have upper bounds.
    """

    anomalies: Bound = Field(
        Bound(stop=0), description="Largest number of violations of the schema that TFDV may find in train and val."
    )
    repeated_ids: Bound = Field(
        Bound(stop=0), description="Largest number of examples whose id an earlier example already has."
    )
    missing_classes: Bound = Field(
        Bound(stop=0), description="Largest number of classes without an image, added up over the splits."
    )
    conflicting_labels: Bound = Field(
        Bound(stop=0),
        description="Largest number of images that equal or nearly equal an image with another label, in all splits.",
    )
    wrong_labels: Bound = Field(
        Bound(),
        description="Largest share of wrong labels in all splits, as the label check estimates it. A bound "
        "requires label_check.epochs above 0.",
    )
    image_side: Bound = Field(
        Bound(stop=8), description="Smallest side that an image may have, in pixels. Smaller images show too little."
    )
    one_colour: Bound = Field(Bound(warn=0), description="Largest number of images whose pixels are all equal.")
    narrow_range: Bound = Field(
        Bound(warn=0), description="Largest number of 16-bit PNG images that use less than a quarter of their range."
    )
    class_examples: Bound = Field(
        Bound(warn=20, stop=2), description="Smallest number of training images that a class may have."
    )
    imbalance: Bound = Field(
        Bound(warn=10, stop=100),
        description="Largest ratio between the training images of the largest class and those of the smallest class.",
    )
    duplicates: Bound = Field(
        Bound(warn=0.01, stop=0.2),
        description="Largest share of training images with the same pixels as an earlier training image.",
    )
    exact_leaks: Bound = Field(
        Bound(stop=0),
        description="Largest number of images of val and test with the same pixels as an image of an earlier split.",
    )
    near_leaks: Bound = Field(
        Bound(warn=0.01, stop=0.05),
        description="Largest share of the images of val or test that nearly equal an image of an earlier split. It is "
        "0.03 for the test images of CIFAR-10.",
    )
    drift_labels_linf: Bound = Field(
        Bound(warn=0.05, stop=0.2),
        description="Largest change of a class's share of the training images since the newest earlier span that "
        "passed.",
    )
    drift_labels_js: Bound = Field(
        Bound(warn=0.02, stop=0.1),
        description="Largest Jensen-Shannon divergence, in bits from 0 to 1, between the distributions of training "
        "labels in this span and in the newest earlier span that passed.",
    )
    drift_colour: Bound = Field(
        Bound(warn=0.1, stop=0.5),
        description="Largest change of a colour channel's mean in the training images since the newest earlier span "
        "that passed, in standard deviations of the channel.",
    )
    drift_brightness: Bound = Field(
        Bound(warn=0.05, stop=0.2),
        description="Largest divergence of the distributions of image brightness, measured as for drift_labels_js.",
    )
    drift_sharpness: Bound = Field(
        Bound(warn=0.05, stop=0.2),
        description="Largest divergence of the distributions of image sharpness, measured as for drift_labels_js.",
    )
    drift_sizes: Bound = Field(
        Bound(warn=0.1, stop=0.5),
        description="Largest divergence of the distributions of image sizes, measured as for drift_labels_js.",
    )
    leave_out_leaks: bool = Field(
        False, description="Leave images that leak between splits out of training and model selection."
    )


# Files and a property of a DataVerdict artifact.
PAGE = "data.html"  # the page for a person
LEAVE_OUT = "leave_out.json"  # ids (surrogateescape) of the leaking images that are left out of training
DATA_FOLDER = "data_folder"  # custom property: the data folder that holds the span

CHECKS = tuple(name for name, field in DataGateSettings.model_fields.items() if isinstance(field.default, Bound))
# Checks without settings: images that do not decode, and labels that belong to no class. Training is impossible on
# such examples, so these checks always stop and cannot be accepted. `vitpipe data prepare` rejects such examples too.
UNUSABLE = ("undecodable", "outside_labels")


Level = Literal["stop", "accepted", "warning", "ok"]
LEVELS: tuple[Level, ...] = get_args(Level)  # most severe first


class Finding(Group):
    """Result of one check: the value, the bound, and the reason of the person who accepted it."""

    # The aliases are the keys of recorded findings, so they must not change.
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    check: str
    value: float
    bound: Bound
    sense: Literal["at most", "at least"]
    text: str  # description of the value
    examples: tuple[str, ...] = ()  # names of the first images that are affected
    fix: str = Field("", alias="cure")  # what the user can do
    accepted: str | None = None  # reason of the person who accepted it

    @property
    def level(self) -> Level:
        """Severity of the finding, one of LEVELS."""
        if self._is_past(self.bound.stop):
            return "stop" if self.accepted is None else "accepted"
        return "warning" if self._is_past(self.bound.warn) else "ok"

    def __str__(self) -> str:
        bound = self.bound.warn if self.level == "warning" else self.bound.stop
        reason = f" (accepted: {self.accepted})" if self.level == "accepted" else ""
        fix = f": {self.fix}" if self.fix and self.level == "stop" else ""
        allowed = "" if bound is None else f", allowed is {self.sense} {bound:g}"
        first = f", first: {', '.join(self.examples[:3])}" if self.examples else ""
        return f"{self.check}: {self.text}{allowed}{reason}{first}{fix}"

    def _is_past(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.value > bound if self.sense == "at most" else self.value < bound

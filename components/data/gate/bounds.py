"""Bounds that data must satisfy before a model is trained on them, and the findings of the checks.

The command imports this module, so it needs neither TFX nor NumPy.
"""

from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from trainer.settings import Group, SettingsGroup

_LARGEST = 1e12  # the largest bound: no data set has as many images
_NOT_NEGATIVE: JsonDict = {"minimum": 0, "maximum": _LARGEST}  # `DataGateSettings` checks it


class Bound(SettingsGroup):
    """Thresholds of one check of the data."""

    warn: float | None = Field(
        None,
        description="Past this value the check is reported. null: it is never reported.",
        json_schema_extra=_NOT_NEGATIVE,
    )
    stop: float | None = Field(
        None,
        description="Past this value the run ends. null: it never ends the run.",
        json_schema_extra=_NOT_NEGATIVE,
    )


class DataGateSettings(SettingsGroup):
    """Thresholds of the checks of the data. A file or flag may change one of two and leave the other as it is."""

    anomalies: Bound = Field(
        Bound(stop=0), description="Most anomalies that TFDV may find against the schema, in train and val."
    )
    repeated_ids: Bound = Field(Bound(stop=0), description="Most examples with the id of another, in all splits.")
    missing_classes: Bound = Field(Bound(stop=0), description="Most classes without an image in one of the splits.")
    conflicting_labels: Bound = Field(
        Bound(stop=0), description="Most images whose pixels also appear with another label, in all splits."
    )
    image_side: Bound = Field(
        Bound(stop=8), description="Least pixels on the shorter side of an image: a smaller one has nothing to show."
    )
    rotated: Bound = Field(Bound(warn=0), description="Most images with an Exif orientation, which is ignored.")
    one_colour: Bound = Field(
        Bound(warn=0), description="Most images whose pixels are all equal once transparency is dropped."
    )
    narrow_range: Bound = Field(
        Bound(warn=0), description="Most 16-bit PNG images that use less than a quarter of their range."
    )
    class_examples: Bound = Field(Bound(warn=20, stop=2), description="Least training images of the smallest class.")
    imbalance: Bound = Field(
        Bound(warn=10, stop=100),
        description="Largest class, at most, as a multiple of the smallest, in training images.",
    )
    duplicates: Bound = Field(
        Bound(warn=0.01, stop=0.2),
        description="Largest share of training images that are equal to another, pixel by pixel.",
    )
    exact_leaks: Bound = Field(
        Bound(stop=0), description="Most images of val and test that also appear in an earlier split, pixel by pixel."
    )
    near_leaks: Bound = Field(
        Bound(warn=0.01, stop=0.05),
        description="Largest share of images of val and test that nearly appear in an earlier split. For the test "
        "images of CIFAR-10 it is 0.03.",
    )
    drift_labels_linf: Bound = Field(
        Bound(warn=0.05, stop=0.2),
        description="Largest change of a class's share since the newest earlier span that passed.",
    )
    drift_labels_js: Bound = Field(
        Bound(warn=0.02, stop=0.1),
        description="Largest Jensen-Shannon divergence, in bits from 0 to 1, of the labels from those of the newest "
        "earlier span that passed.",
    )
    drift_colour: Bound = Field(
        Bound(warn=0.1, stop=0.5),
        description="Largest change of a channel's mean since the newest earlier span that passed, in standard "
        "deviations of its pixels.",
    )
    drift_brightness: Bound = Field(
        Bound(warn=0.05, stop=0.2),
        description="Largest divergence of the images' brightness, as for drift_labels_js.",
    )
    drift_sharpness: Bound = Field(
        Bound(warn=0.05, stop=0.2), description="Largest divergence of the images' sharpness, as for drift_labels_js."
    )
    drift_sizes: Bound = Field(
        Bound(warn=0.1, stop=0.5), description="Largest divergence of the images' sizes, as for drift_labels_js."
    )
    leave_out_leaks: bool = Field(
        False, description="Train and select the model without the images that leak between splits."
    )

    @model_validator(mode="before")
    @classmethod
    def keep_the_other_number(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {
            name: defaults[name].model_dump() | value
            if isinstance(value, dict) and isinstance(defaults.get(name), Bound)
            else value
            for name, value in given.items()
        }

    @model_validator(mode="after")
    def bounds_are_sane(self) -> Self:
        # `Bound` does not check this itself, because it also reads bounds that earlier versions recorded.
        for name in CHECKS:
            for level, value in getattr(self, name).model_dump().items():
                if value is not None and not 0 <= value <= _LARGEST:
                    raise ValueError(
                        f"{name}.{level} {value:g} is not between 0 and {_LARGEST:g}; write null to turn it off"
                    )
        return self


# Files of a verdict.
PAGE = "data.html"  # what a person looks at
DATA_FOLDER = "data_folder"  # property of a verdict: whose spans it is one of
LEAVE_OUT = "leave_out.json"  # ids (surrogateescape) of what is left out of training, because it leaks

CHECKS = tuple(name for name, field in DataGateSettings.model_fields.items() if isinstance(field.default, Bound))
# Images that do not decode, labels that are no class (which our ingestion refuses first): nobody can train on one of
# them, whatever is set or accepted.
UNUSABLE = ("undecodable", "outside_labels")


Level = Literal["stop", "accepted", "warning", "ok"]
LEVELS: tuple[Level, ...] = get_args(Level)  # the gravest first


class Finding(Group):
    """One check: what was found, what is allowed, and what a person said to it."""

    # The aliases are the keys of recorded findings, so they must not change.
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    check: str
    value: float
    bound: Bound
    sense: Literal["at most", "at least"]
    text: str  # what was found, in words
    examples: tuple[str, ...] = ()  # the first it was found in
    fix: str = Field("", alias="cure")  # what to do about it
    accepted: str | None = None  # the person's words

    @property
    def level(self) -> Level:
        if self._beyond(self.bound.stop):
            return "stop" if self.accepted is None else "accepted"
        return "warning" if self._beyond(self.bound.warn) else "ok"

    def __str__(self) -> str:
        bound = self.bound.warn if self.level == "warning" else self.bound.stop
        said = f" (accepted: {self.accepted})" if self.level == "accepted" else ""
        fix = f": {self.fix}" if self.fix and self.level == "stop" else ""
        allowed = "" if bound is None else f", allowed is {self.sense} {bound:g}"
        first = f", first: {', '.join(self.examples[:3])}" if self.examples else ""
        return f"{self.check}: {self.text}{allowed}{said}{first}{fix}"

    def _beyond(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.value > bound if self.sense == "at most" else self.value < bound

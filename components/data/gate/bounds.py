"""The bounds that data must keep before anything is trained on them, and what a check says. Imported by the command:
it knows neither TFX nor NumPy.
"""

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from trainer.settings import Group, SettingsGroup

_LARGEST = 1e12  # the largest bound: no data set has as many images


class Bound(SettingsGroup):
    """Beyond `warn` a check is told of, beyond `stop` it ends the run; without a number it does not."""

    warn: float | None = None
    stop: float | None = None


class DataGateSettings(SettingsGroup):
    """A bound for each check. A file or flag may change one number and leave the other as it is."""

    anomalies: Bound = Bound(stop=0)  # at most so many that TFDV finds against the schema, in train and val
    # In all three splits.
    repeated_ids: Bound = Bound(stop=0)  # at most so many examples with the id of another
    missing_classes: Bound = Bound(stop=0)  # at most so many classes without an image in a split
    conflicting_labels: Bound = Bound(stop=0)  # at most so many images whose picture has another label elsewhere
    image_side: Bound = Bound(stop=8)  # pixels at least on the shorter side: less has nothing to show
    rotated: Bound = Bound(warn=0)  # at most so many images with an Exif orientation, which is ignored
    one_colour: Bound = Bound(warn=0)  # at most so many images whose pixels are all equal once transparency is dropped
    narrow_range: Bound = Bound(warn=0)  # at most so many 16-bit PNGs that use less than a quarter of their range
    # What is trained on.
    class_examples: Bound = Bound(warn=20, stop=2)  # images at least in the smallest class
    imbalance: Bound = Bound(warn=10, stop=100)  # the largest class at most so many times the smallest
    duplicates: Bound = Bound(warn=0.01, stop=0.2)  # share at most of images that another has pixel by pixel
    # What is measured on: val and test.
    exact_leaks: Bound = Bound(stop=0)  # images at most that stand in an earlier split too, pixel by pixel
    near_leaks: Bound = Bound(warn=0.01, stop=0.05)  # share at most that nearly do; 0.03 of CIFAR-10's test images
    # Against the newest earlier span that passed: Jensen-Shannon divergences in bits, 0 for equal, 1 for disjoint.
    drift_labels_linf: Bound = Bound(warn=0.05, stop=0.2)  # largest change at most of a class's share
    drift_labels_js: Bound = Bound(warn=0.02, stop=0.1)
    drift_colour: Bound = Bound(warn=0.1, stop=0.5)  # of a channel's mean at most, in standard deviations of its pixels
    drift_brightness: Bound = Bound(warn=0.05, stop=0.2)
    drift_sharpness: Bound = Bound(warn=0.05, stop=0.2)
    drift_sizes: Bound = Bound(warn=0.1, stop=0.5)
    leave_out_leaks: bool = Field(False)  # train and select without the images that leak

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
    def bounds_are_sane(self):
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

    check: str
    value: float
    bound: Bound
    sense: Literal["at most", "at least"]
    text: str  # what was found, in words
    examples: tuple[str, ...] = ()  # the first it was found in
    cure: str = ""
    accepted: str | None = None  # the person's words

    @property
    def level(self) -> Level:
        if self._beyond(self.bound.stop):
            return "stop" if self.accepted is None else "accepted"
        return "warning" if self._beyond(self.bound.warn) else "ok"

    def __str__(self) -> str:
        bound = self.bound.warn if self.level == "warning" else self.bound.stop
        said = f" (accepted: {self.accepted})" if self.level == "accepted" else ""
        cure = f": {self.cure}" if self.cure and self.level == "stop" else ""
        allowed = "" if bound is None else f", allowed is {self.sense} {bound:g}"
        first = f", first: {', '.join(self.examples[:3])}" if self.examples else ""
        return f"{self.check}: {self.text}{allowed}{said}{first}{cure}"

    def _beyond(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.value > bound if self.sense == "at most" else self.value < bound

"""Settings of a tuning: the values to search, their checks, and the settings of one trial.

Imports neither TensorFlow nor Optuna, because the settings of a run use this module, too.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from trainer.settings import MOST_EPOCHS, AugmentSettings, ModelSettings, SettingsGroup, TrainingSettings

_MOST_CHECKED = 1_000  # whole numbers of a range, each of which is checked

_DECODED_ONCE = "the images are decoded once, for all trials and for serving"
# Settings that cannot be searched, with the reason.
_NOT_SEARCHED = {
    "model.size": "search depth, width or heads instead",
    "model.image_size": _DECODED_ONCE,
    "model.resize": _DECODED_ONCE,
    "model.background": _DECODED_ONCE,
    "augment.stored_size": _DECODED_ONCE,
    "training.epochs": "more epochs would nearly always win; set training.epochs, and tune.epochs for shorter trials",
    "training.precision": "it changes the speed rather than the accuracy",
    "training.accumulate": "it changes the memory rather than the accuracy",
    "training.workers": "it changes the speed rather than the accuracy",
    "training.use_val": "trials are compared on val",
    "training.teacher_epochs": "trials have no teacher",
    "training.teacher_weight": "trials have no teacher",
    "model.flip_average": "it changes the exported model, not the training",
    "training.warm_start": "trials train from scratch",
    "training.tuned": "it says whether to use the result of a tuning",
    "training.checkpoint_seconds": "it has no effect on the accuracy",
    "training.require_gpu": "it has no effect on the accuracy",
    "training.seed": "a seed that is lucky on val is not better on other images",
}


class Dimension(SettingsGroup):
    """Values to search of one setting: a range of numbers from low to high, or a list of choices."""

    low: float | None = Field(None, ge=-1e9, le=1e9, description="Smallest value of a range. null: choices are listed.")
    high: float | None = Field(None, ge=-1e9, le=1e9, description="Largest value of a range. null: choices are listed.")
    log: bool = Field(False, description="Search the logarithm, for values that differ by orders of magnitude.")
    step: float | None = Field(
        None, gt=0, le=1e9, description="Distance between neighbouring values of a range. null: 1, or any real number."
    )
    choices: tuple[Any, ...] = Field((), description="Values to choose from: numbers, texts, true, false or null.")

    @model_validator(mode="after")
    def check_shape(self) -> Self:
        """Reject a mixture of range and choices, and a range that is empty or cannot be divided into steps."""
        if self.choices:
            if (self.low, self.high, self.log, self.step) != (None, None, False, None):
                raise ValueError(
                    "choices and a range exclude each other: set low, high and step to null and log to false, perhaps "
                    "to override those of the preset, or remove choices"
                )
            for choice in self.choices:
                if choice is not None and not isinstance(choice, bool | int | float | str):
                    raise ValueError(f"the choice {choice} is not a number, a text, true, false or null: remove it")
            return self
        if self.low is None or self.high is None:
            raise ValueError("write {low: NUMBER, high: NUMBER} or {choices: [VALUE, ...]}")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not less than high {self.high:g}: change one of them")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} has no logarithm: raise low above 0, or set log to false")
        if self.log and self.step:
            raise ValueError("log and step exclude each other: remove one of them")
        if (
            self.step
            and not math.isclose((self.high - self.low) % self.step, 0, abs_tol=1e-9 * self.step)
            and (not math.isclose((self.high - self.low) % self.step, self.step, rel_tol=1e-9))
        ):
            raise ValueError(f"high {self.high:g} is not a whole number of steps {self.step:g} above low {self.low:g}")
        return self

    def __str__(self) -> str:
        """Return the values in words."""
        if self.choices:
            return " or ".join(str(choice) for choice in self.choices)
        suffix = " (log)" if self.log else f" by {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{suffix}"


class SpaceSettings(SettingsGroup):
    """Search space of a tuning, by group and setting."""

    model: dict[str, Dimension | None] = Field(
        default_factory=dict,
        description="Settings of the group model to search, such as {stochastic_depth: {low: 0, high: 0.3}}. A setting "
        "with null: not searched.",
    )
    augment: dict[str, Dimension | None] = Field(
        default_factory=dict,
        description="Settings of the group augment to search, such as {flip: {choices: [true, false]}}. A setting with "
        "null: not searched.",
    )
    training: dict[str, Dimension | None] = Field(
        default_factory=dict,
        description="Settings of the group training to search, such as {learning_rate: {low: 1e-4, high: 1e-2, log: "
        "true}}. A setting with null: not searched.",
    )

    def dimensions(self) -> dict[str, Dimension]:
        """Return the searched settings by dotted names such as `training.learning_rate`, in alphabetical order."""
        groups = {"model": self.model, "augment": self.augment, "training": self.training}
        every = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
        return {name: value for name, value in sorted(every.items()) if value is not None}


class TuneSettings(SettingsGroup):
    """Settings of a tuning."""

    trials: int = Field(20, ge=1, le=100_000, description="Number of trials, including those of an interrupted tuning.")
    processes: int = Field(
        1, ge=1, le=256, description="Number of trials that run at the same time, each with its share of the CPU cores."
    )
    epochs: int | None = Field(
        None,
        gt=0,
        le=MOST_EPOCHS,
        description="Largest number of epochs of a trial. Fewer than training.epochs shorten the whole schedule, "
        "with warmup, weight average and patience. null: training.epochs.",
    )
    startup_trials: int = Field(
        5,
        ge=1,
        le=100_000,
        description="Number of first trials whose values are random, and which are never pruned.",
    )
    space: SpaceSettings = Field(SpaceSettings(), description="Settings to search.")


class TrialSettings(NamedTuple):
    """Settings that the search may change."""

    model: ModelSettings
    augment: AugmentSettings
    training: TrainingSettings


_GROUPS: dict[str, type[SettingsGroup]] = {
    "model": ModelSettings,
    "augment": AugmentSettings,
    "training": TrainingSettings,
}


def apply(values: Mapping[str, Any], settings: TrialSettings) -> TrialSettings:
    """Return settings with other values.

    Args:
        values: Values by the dotted names of their settings.
        settings: The settings to change.

    Raises:
        ValueError: If the settings do not accept a value, or the values do not fit each other.
    """
    groups = {group: part.model_dump() for group, part in settings._asdict().items()}
    for name, value in values.items():
        group, _, key = name.partition(".")
        if group not in groups or key not in groups[group]:
            raise ValueError(f"{name} is not a setting that a tuning can change")
        groups[group][key] = value
    try:
        return TrialSettings(
            ModelSettings.model_validate(groups["model"]),
            AugmentSettings.model_validate(groups["augment"]),
            TrainingSettings.model_validate(groups["training"]),
        )
    except ValidationError as error:
        raise ValueError("; ".join(_problems(error))) from None


def shorten(training: TrainingSettings, epochs: int | None) -> TrainingSettings:
    """Return the settings of a shorter training with a schedule of the same shape.

    Args:
        training: Settings of the whole training.
        epochs: Number of epochs. The settings are returned unchanged if it is None, or not less than theirs.
    """
    if epochs is None or epochs >= training.epochs:
        return training
    share = epochs / training.epochs
    return training.model_copy(
        update={
            "epochs": epochs,
            "warmup_epochs": training.warmup_epochs * share,
            "ema_epochs": training.ema_epochs * share,
            "teacher_epochs": math.ceil(training.teacher_epochs * share),
            "patience": None if training.patience is None else max(1, round(training.patience * share)),
        }
    )


def check_space(tune: TuneSettings) -> None:
    """Check that each searched setting exists, can be searched, and accepts each value of the search space.

    Raises:
        ValueError: If it does not.
    """
    for name, dimension in tune.space.dimensions().items():
        place = f"tune.space.{name}"
        group, _, key = name.partition(".")
        fields = _GROUPS[group].model_fields
        if key not in fields:
            raise ValueError(f"{place}: the group {group} has no setting {key}; it has {', '.join(fields)}")
        if name in _NOT_SEARCHED:
            raise ValueError(f"{place}: it cannot be searched, because {_NOT_SEARCHED[name]}: remove it")
        if not dimension.choices and not _kinds(fields[key].annotation) & {int, float}:
            raise ValueError(f"{place}: the setting is not a number, so list its values as {{choices: [...]}}")
        kind: Any = Annotated[fields[key].annotation, fields[key]]
        field: TypeAdapter[Any] = TypeAdapter(kind)
        for value in _values(name, dimension):
            try:
                field.validate_python(value)
            except ValidationError as error:
                raise ValueError(f"{place}: {value!r} is not possible: {'; '.join(_problems(error))}") from None


def check_fit(tune: TuneSettings, settings: TrialSettings) -> None:
    """Check that each value of a search space fits the other settings.

    Args:
        tune: Settings of the tuning, which `check_space` accepts.
        settings: The settings that the search changes.

    Raises:
        ValueError: If a value does not fit.
    """
    for name, dimension in tune.space.dimensions().items():
        for value in _values(name, dimension):
            try:
                apply({name: value}, settings)
            except ValueError as error:
                raise ValueError(f"tune.space.{name}: {value!r} does not fit: {error}") from None


def is_whole(name: str) -> bool:
    """Return whether a setting, by its dotted name, is a whole number."""
    group, _, key = name.partition(".")
    kinds = _kinds(_GROUPS[group].model_fields[key].annotation)
    return int in kinds and float not in kinds


def _kinds(annotation: object) -> set[object]:
    return set(get_args(annotation)) or {annotation}


def _values(name: str, dimension: Dimension) -> Iterator[Any]:
    """Yield the values to check: all choices, all whole numbers of a range, or the ends of a range of real numbers."""
    if dimension.choices:
        yield from dimension.choices
        return
    assert dimension.low is not None and dimension.high is not None
    if not is_whole(name):
        yield from (dimension.low, dimension.high)
        return
    if any(value is not None and value % 1 for value in (dimension.low, dimension.high, dimension.step)):
        raise ValueError(f"tune.space.{name}: low, high and step must be whole numbers, like the setting itself")
    values = range(int(dimension.low), int(dimension.high) + 1, int(dimension.step or 1))
    if len(values) > _MOST_CHECKED:
        raise ValueError(
            f"tune.space.{name}: the range has {len(values):,} values, but at most {_MOST_CHECKED:,} are allowed: set "
            "a larger step, or list choices"
        )
    yield from values


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        yield ": ".join([*map(str, problem["loc"]), message])

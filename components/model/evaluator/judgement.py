"""Judgement of a model's measured figures against bounds. Plain arithmetic; imports no TFX."""

from typing import Literal

from pydantic import Field

from trainer.settings import Group, SettingsGroup

Interval = tuple[float, float]
_AGAINST = "accuracy against the serving model"
_LISTED = 5  # class names in a message
OVERRIDE = "override"  # property of a blessing that a person issued, and of its model: reason and time, as JSON


class GateSettings(SettingsGroup):
    """Bounds that a model must satisfy on the gate's test set. All are fractions, from 0 to 1."""

    accuracy: float = Field(0.92, ge=0, le=1, description="Lowest accuracy on the whole test set.")
    class_accuracy: float = Field(0.0, ge=0, le=1, description="Lowest accuracy on the images of any one class.")
    calibration: float = Field(
        1.0, ge=0, le=1, description="Largest expected calibration error: the distance of confidence from accuracy."
    )
    tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest loss of accuracy against the model that serves now. A larger loss passes if it may be "
        "chance.",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence level of every interval.")


class ModelFigures(Group):
    """What was measured of one model. Intervals are exact ones of a share, at `GateSettings.confidence`."""

    classes: list[str]  # in index order
    examples: int
    accuracy: float
    accuracy_interval: Interval
    top_3: float
    log_loss: float
    calibration_error: float
    class_accuracy: dict[str, float]  # by class name: of its examples the share answered right, which is recall
    class_accuracy_interval: dict[str, Interval]
    class_precision: dict[str, float]  # of the answers that name it, the share that is right
    looks_accuracy: dict[str, float]  # of the darkest third of the images (`brightness low`), and so on
    confusion: list[list[int]]  # examples of class i (row) answered with class j


class Comparison(Group):
    """Comparison of the candidate with the model serving now, on the same examples.

    If the classes of the two models differ, only examples of the classes that both know are compared.
    """

    examples: int
    gained: int  # that only the candidate has right
    lost: int  # that only the serving model has right
    difference: float  # of the accuracies
    interval: Interval  # of the difference
    accuracies: tuple[float, float] | None = None  # the candidate's and the serving model's, on these examples
    shared: tuple[str, ...] = ()  # the classes that both models know, if their classes differ

    @property
    def scope(self) -> str:
        """Description of the compared examples; empty if they are the whole test set."""
        if not self.shared:
            return ""
        more = len(self.shared) - _LISTED
        names = ", ".join(self.shared[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")
        return f"on the {self.examples:,} test images of the classes that both know ({names})"


class Check(Group):
    """One bound, and whether the model kept it."""

    name: str
    value: float
    bound: float
    sense: Literal["at least", "at most"] = "at least"
    interval: Interval | None = None
    detail: str = ""
    noise: bool = False  # what the value says is no more than chance: then it is not held against the model

    @property
    def kept(self) -> bool:
        # Computed in float32 somewhere, 162 of 180 is 0.89999998, and has kept a bound of 0.9.
        spare = self.value - self.bound if self.sense == "at least" else self.bound - self.value
        return round(spare, 6) >= 0

    @property
    def passed(self) -> bool:
        return self.kept or self.noise

    def __str__(self) -> str:
        missed = "below" if self.sense == "at least" else "above"
        interval = f"{self.interval[0]:.4f} to {self.interval[1]:.4f}" if self.interval else ""
        detail = "; ".join(filter(None, [self.detail, interval]))
        noise = ", which may be noise" if self.noise and not self.kept else ""
        bound = f"{self.sense if self.kept else missed} {self.bound:.4f}{noise}"
        return f"{self.name} {self.value:.4f} is {bound}" + f" ({detail})" * bool(detail)


class Override(Group):
    """A person's words over the gate's."""

    reason: str
    at: str


class Judgement(Group):
    """Everything the gate weighed."""

    candidate: ModelFigures
    serving: ModelFigures | None
    comparison: Comparison | None
    confidence: float
    checks: list[Check]
    incomparable: str = ""  # why the model serving now was not compared with

    @property
    def warnings(self) -> list[str]:
        """What a person should know although it decides nothing."""
        lines = [f"not compared with the serving model: {self.incomparable}"] if self.incomparable else []
        if self.comparison and self.comparison.shared:
            lines.append(
                f"the serving model has other classes: the two are compared only {self.comparison.scope}; an answer "
                "with another class counts as wrong"
            )
        figures = self.candidate
        count, always = max(zip(map(sum, figures.confusion), figures.classes, strict=True))
        if self.blessed and figures.accuracy_interval[0] <= count / figures.examples:
            lines.append(
                f"accuracy {figures.accuracy:.4f} may be no better than chance: a model that answers {always} to every "
                f"image has {count / figures.examples:.4f}; gate.accuracy should be above that"
            )
        for check in self.checks:
            if check.name == _AGAINST and check.interval and self.comparison:
                # A loss of just the tolerance is held against a model only if its interval ends below zero.
                reach = (check.interval[1] - check.interval[0]) / 2
                if reach > -check.bound:
                    lines.append(
                        f"{self.comparison.examples:,} test images are too few to tell a loss of {-check.bound:.4f} "
                        f"(gate.tolerance) from chance: the difference from the serving model is known to within "
                        f"{reach:.4f}; take more test images, or a wider tolerance"
                    )
        return lines

    @property
    def blessed(self) -> bool:
        return all(check.passed for check in self.checks)


def judge(
    settings: GateSettings,
    candidate: ModelFigures,
    serving: ModelFigures | None = None,
    comparison: Comparison | None = None,
    incomparable: str = "",
) -> Judgement:
    """Weigh a candidate against the bounds and, where one serves, against the model serving now.

    A candidate that is worse than the serving model by more than the tolerance is blocked unless the interval of the
    difference reaches zero: then the examples cannot tell the two apart, and it would be chance that decides.
    incomparable: why there is no comparison although a model serves.
    """
    worst = min(candidate.class_accuracy, key=lambda name: candidate.class_accuracy[name])
    checks = [
        Check(
            name="accuracy",
            value=candidate.accuracy,
            bound=settings.accuracy,
            interval=candidate.accuracy_interval,
        ),
        Check(
            name="worst class accuracy",
            value=candidate.class_accuracy[worst],
            bound=settings.class_accuracy,
            interval=candidate.class_accuracy_interval[worst],
            detail=worst,
        ),
        Check(
            name="calibration error",
            value=candidate.calibration_error,
            bound=settings.calibration,
            sense="at most",
        ),
    ]
    if comparison is not None and (serving is not None or comparison.accuracies is not None):
        ours, theirs = comparison.accuracies or (candidate.accuracy, serving.accuracy if serving else 0.0)
        counts = f"{comparison.gained:,} examples gained, {comparison.lost:,} lost"
        checks.append(
            Check(
                name=_AGAINST,
                value=comparison.difference,
                bound=-settings.tolerance,
                interval=comparison.interval,
                noise=comparison.interval[1] >= 0,
                detail=" ".join(filter(None, [f"{ours:.4f} against {theirs:.4f}", comparison.scope])) + f", {counts}",
            )
        )
    return Judgement(
        candidate=candidate,
        serving=serving,
        comparison=comparison,
        confidence=settings.confidence,
        checks=checks,
        incomparable=incomparable,
    )

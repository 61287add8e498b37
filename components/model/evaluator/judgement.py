"""Judgement of a model's measured figures against bounds. Imports neither TFX nor TensorFlow."""

from typing import Literal

from pydantic import Field

from trainer.settings import Group, SettingsGroup

Interval = tuple[float, float]
_AGAINST = "accuracy against the serving model"
_NAMES_IN_MESSAGE = 5
OVERRIDE = "override"  # property of a blessing that a person issued, and of its model: an `Override`, as JSON


class GateSettings(SettingsGroup):
    """Bounds that a model must satisfy on the gate's test set. All are fractions, from 0 to 1."""

    accuracy: float = Field(0.92, ge=0, le=1, description="Lowest accuracy on the whole test set.")
    class_accuracy: float = Field(0.0, ge=0, le=1, description="Lowest accuracy on the images of any one class.")
    calibration: float = Field(
        1.0, ge=0, le=1, description="Largest expected calibration error: the mean gap between confidence and accuracy."
    )
    tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest loss of accuracy compared with the serving model. A larger loss passes if it may be "
        "chance.",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence level of every interval.")


class ModelFigures(Group):
    """Measured figures of one model. Intervals are exact intervals of a share, at `GateSettings.confidence`."""

    classes: list[str]  # in index order
    examples: int
    accuracy: float
    accuracy_interval: Interval
    top_3: float
    log_loss: float
    calibration_error: float
    class_accuracy: dict[str, float]  # by class name: share of the class's examples answered correctly (recall)
    class_accuracy_interval: dict[str, Interval]
    class_precision: dict[str, float]  # by class name: share of the answers with this class that are correct
    looks_accuracy: dict[str, float]  # by third of the images: `brightness low` is the darkest third, and so on
    looks_accuracy_interval: dict[str, Interval] = Field({})  # by third; earlier versions did not record it
    confusion: list[list[int]]  # number of examples of class i (row) answered with class j (column)


class Comparison(Group):
    """Comparison of the candidate with the serving model, on the same examples.

    If the classes of the two models differ, only examples of the classes that both know are compared.
    """

    examples: int
    gained: int  # examples that only the candidate answers correctly
    lost: int  # examples that only the serving model answers correctly
    difference: float  # accuracy of the candidate minus accuracy of the serving model
    interval: Interval  # interval of the difference
    accuracies: tuple[float, float] | None = None  # candidate and serving model, on these examples
    shared: tuple[str, ...] = ()  # classes that both models know; empty if their classes are the same

    @property
    def scope(self) -> str:
        """Description of the compared examples; empty if they are the whole test set."""
        if not self.shared:
            return ""
        more = len(self.shared) - _NAMES_IN_MESSAGE
        names = ", ".join(self.shared[:_NAMES_IN_MESSAGE]) + (f" and {more:,} more" if more > 0 else "")
        return f"on the {self.examples:,} test images of the classes that both know ({names})"


class Check(Group):
    """One bound, and the value that is compared with it."""

    name: str
    value: float
    bound: float
    sense: Literal["at least", "at most"] = "at least"
    interval: Interval | None = None
    detail: str = ""
    noise: bool = False  # whether the value may be chance, in which case the check passes anyway

    @property
    def satisfied(self) -> bool:
        """Return whether the value satisfies the bound."""
        # Rounded, because in float32 162 of 180 is 0.89999998, which must satisfy a bound of 0.9.
        margin = self.value - self.bound if self.sense == "at least" else self.bound - self.value
        return round(margin, 6) >= 0

    @property
    def passed(self) -> bool:
        """Return whether the model passes: the value satisfies the bound, or may be chance."""
        return self.satisfied or self.noise

    def __str__(self) -> str:
        """Return one sentence with the value, the bound and the details."""
        missed = "below" if self.sense == "at least" else "above"
        interval = f"{_figure(self.interval[0])} to {_figure(self.interval[1])}" if self.interval else ""
        detail = "; ".join(filter(None, [self.detail, interval]))
        noise = ", which may be noise" if self.noise and not self.satisfied else ""
        bound = f"{self.sense if self.satisfied else missed} {_figure(self.bound)}{noise}"
        return f"{self.name} {_figure(self.value)} is {bound}" + f" ({detail})" * bool(detail)


def _figure(value: float) -> str:
    """Return a value with four decimals, or with two significant digits if it is between -0.001 and 0.001."""
    return f"{value:.2g}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


class Override(Group):
    """Record of a person's decision to bless a model that the gate did not bless."""

    reason: str
    at: str


class Judgement(Group):
    """Verdict of the gate, with everything that it is based on."""

    candidate: ModelFigures
    serving: ModelFigures | None
    comparison: Comparison | None
    confidence: float
    checks: list[Check]
    incomparable: str = ""  # reason why the candidate was not compared with the serving model; empty otherwise

    @property
    def warnings(self) -> list[str]:
        """Sentences that a person should know, although they do not affect the verdict."""
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
                f"image has {count / figures.examples:.4f}; set gate.accuracy above that"
            )
        for check in self.checks:
            if check.name == _AGAINST and check.interval and self.comparison:
                # A loss as large as the tolerance fails the check only if its whole interval is below zero, which
                # needs an interval narrower than twice the tolerance.
                half_width = (check.interval[1] - check.interval[0]) / 2
                if half_width > -check.bound:
                    lines.append(
                        f"{self.comparison.examples:,} test images are too few to tell a loss of {-check.bound:.4f} "
                        f"(gate.tolerance) from chance: the difference from the serving model is known to within "
                        f"{half_width:.4f}; use more test images, or a larger tolerance"
                    )
        return lines

    @property
    def blessed(self) -> bool:
        """Return whether the candidate may serve: all checks passed."""
        return all(check.passed for check in self.checks)


def judge(
    settings: GateSettings,
    candidate: ModelFigures,
    serving: ModelFigures | None = None,
    comparison: Comparison | None = None,
    incomparable: str = "",
) -> Judgement:
    """Judge a candidate by the bounds and, if a model serves, by comparison with that model.

    A candidate that is worse than the serving model by more than the tolerance does not pass, unless the interval of
    the difference includes zero. In that case the difference may be chance.

    Args:
        settings: The bounds.
        candidate: Figures of the candidate.
        serving: Figures of the serving model. None if no model serves, or its classes differ.
        comparison: Comparison of the two models, if there is one.
        incomparable: Reason why there is no comparison although a model serves.

    Returns:
        The judgement.
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

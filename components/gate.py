"""What a model must show before it may serve. Plain arithmetic on measured figures; knows no TFX."""

from pydantic import Field

from trainer.settings import Group


class GateSettings(Group):
    """Bounds on the gate's test set. Accuracies and their differences are fractions, from 0 to 1."""

    accuracy: float = Field(0.92, ge=0, le=1)  # at least this, overall
    class_accuracy: float = Field(0.0, ge=0, le=1)  # at least this, for the worst class
    tolerance: float = Field(0.01, ge=0, le=1)  # at most this much below the model serving now


class Figures(Group):
    """What the Evaluator measured of one model."""

    accuracy: float
    class_accuracy: dict[str, float]  # by class name


class Check(Group):
    """One bound, and whether the model kept it: `value` must be at least `bound`."""

    name: str
    value: float
    bound: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        # TFMA counts in float32: 162 of 180 is 0.89999998 there, and has kept a bound of 0.9.
        return round(self.value - self.bound, 6) >= 0

    def __str__(self) -> str:
        relation = "at least" if self.passed else "below"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.name} {self.value:.4f} is {relation} {self.bound:.4f}{detail}"


class Judgement(Group):
    """Everything the gate weighed."""

    candidate: Figures
    serving: Figures | None
    checks: list[Check]

    @property
    def blessed(self) -> bool:
        return all(check.passed for check in self.checks)


def judge(settings: GateSettings, candidate: Figures, serving: Figures | None) -> Judgement:
    """Weigh a candidate against the bounds and, where one serves, against the model serving now."""
    worst = min(candidate.class_accuracy, key=lambda name: candidate.class_accuracy[name])
    checks = [
        Check(name="accuracy", value=candidate.accuracy, bound=settings.accuracy),
        Check(
            name="worst class accuracy",
            value=candidate.class_accuracy[worst],
            bound=settings.class_accuracy,
            detail=worst,
        ),
    ]
    if serving is not None:
        checks.append(
            Check(
                name="accuracy against the serving model",
                value=candidate.accuracy,
                bound=serving.accuracy - settings.tolerance,
                detail=f"serving {serving.accuracy:.4f}, tolerance {settings.tolerance:.4f}",
            )
        )
    return Judgement(candidate=candidate, serving=serving, checks=checks)

"""Checks of a window of traffic against the reference of its version.

Every threshold is at least as large as the value that unchanged traffic rarely exceeds by chance. The probability of a
warning or an alert in a report on unchanged traffic is at most `monitor.false_alerts`: window number n gets the part
1 / (n (n + 1)) of it, and these parts add up to at most one for any number of windows. Each check gets an equal part
of that.
"""

from collections.abc import Callable

import numpy as np

from components.data.gate.bounds import Bound, DataGateSettings
from components.data.gate.checks import divergence, drift
from components.model.evaluator.measures import exact_interval
from pipeline.monitoring import chance
from pipeline.monitoring.calibration import confidence_histogram
from pipeline.monitoring.reference import Reference
from pipeline.monitoring.report import FarImage, Unchecked, Window, WindowFinding
from pipeline.monitoring.windows import Sums, moment, percentiles
from pipeline.settings.monitor import MonitorSettings

_LEVEL = 0.95  # confidence level of the intervals of accuracies
_COLOURS = 255.0  # range of a colour
_LABEL_CHECKS = ("drift_labels_linf", "drift_labels_js")
_FILE_CHECKS = ("drift_sizes", "drift_formats")
_IMAGE_CHECKS = ("drift_colour", "drift_brightness", "drift_sharpness", *_FILE_CHECKS)
_CHECKS_OF_ANSWERS = (
    "invalid_images",
    "unreadable_answers",
    *_IMAGE_CHECKS,
    *_LABEL_CHECKS,
    "drift_confidence",
    "expected_accuracy_loss",
    "accuracy_loss",
)
_CHANGE = "look at the images of this window, and label some of them to train on them"
_GATE = (
    "look at the images of this window; training alone does not change the test set, so prepare labelled traffic as a "
    "span, set data.gate_span to it, and train again"
)


def judge(
    sums: Sums, reference: Reference, number: int, data_gate: DataGateSettings, settings: MonitorSettings
) -> Window:
    """Return the figures and findings of a window.

    Args:
        sums: sums over the answers.
        reference: the reference of the version.
        number: place of the window in the report, from 1.
        data_gate: thresholds of the drift of images and classes.
        settings: the other thresholds.
    """
    probability = settings.false_alerts / (number * (number + 1)) / (1 + len(_CHECKS_OF_ANSWERS))
    findings: list[WindowFinding] = []
    reasons = _reasons(sums, reference)

    def add(
        check: str,
        value: float,
        limit: float | Callable[[float], float],
        text: str,
        group: DataGateSettings | MonitorSettings = settings,
        fix: str = _CHANGE,
    ) -> None:
        bound: Bound = getattr(group, check)
        raised = {
            level: None if threshold is None else max(threshold, limit(threshold) if callable(limit) else limit)
            for level, threshold in bound.model_dump().items()
        }
        name = f"{'data_gate' if group is data_gate else 'monitor'}.{check}.stop"
        findings.append(
            WindowFinding(
                check=check,
                value=value,
                bound=Bound(**raised),
                sense="at most",
                text=text,
                fix=f"{fix}; if this is intended, allow more with --set {name}=NUMBER",
                chance=limit(0.0) if callable(limit) else limit,
            )
        )

    def share(check: str, count: int, total: int, text: str, fix: str) -> None:
        add(
            check,
            count / total,
            lambda bound: chance.proportion_limit(bound, total, probability),
            f"{count:,} of {total:,} {text}",
            fix=fix,
        )

    share("errors", sums.failed, len(sums), "requests failed", "read the log of the model server")
    if "invalid_images" not in reasons:
        share(
            "invalid_images",
            sums.invalid,
            sums.answers,
            "images cannot be used",
            "find out which client sends them; `undecodable` and `problems` in the report have the reasons",
        )
        share(
            "unreadable_answers",
            sums.unreadable,
            sums.answers,
            "answers are not ones that the model can give",
            "check the model for values that are not finite, and log its probabilities in index order, or the class "
            "and its probability from 0 to 1",
        )

    names, n = reference.classes, len(sums.predicted)
    predicted = dict(zip(names, np.bincount(sums.predicted, minlength=len(names)).tolist(), strict=True))
    tested = dict(zip(names, reference.answers, strict=True))
    images = sums.images.figures(names, 0) if sums.images else None
    usable = sums.images.usable if sums.images else 0
    trained = reference.train.images - sum(reference.train.undecodable.values())

    def histogram_limit(bins: int) -> float:
        return chance.divergence_limit(bins, usable, trained, probability)

    shown = (images or reference.train).model_copy(update={"labels": predicted})
    for check, value, text in drift(shown, reference.train.model_copy(update={"labels": tested})):
        if check in _LABEL_CHECKS:
            if check not in reasons:
                limit = (chance.share_limit if check == _LABEL_CHECKS[0] else chance.divergence_limit)(
                    len(names), n, sum(reference.answers), probability
                )
                add(check, value, limit, f"in the answers, {text} since the test set", data_gate, _GATE)
        elif check not in reasons:
            limit = {
                "drift_colour": lambda: _colour_limit(reference, usable, trained, probability),
                "drift_brightness": lambda: histogram_limit(len(reference.train.brightness)),
                "drift_sharpness": lambda: histogram_limit(len(reference.train.sharpness)),
                "drift_sizes": lambda: histogram_limit(len(reference.train.sides)),
            }[check]()
            add(check, value, limit, f"{text} since training on span {reference.span}", data_gate)
    if images and "drift_formats" not in reasons:
        formats = {*images.formats, *reference.train.formats}
        now, before = ({name: of.formats.get(name, 0) for name in formats} for of in (images, reference.train))
        value = divergence(now, before)
        most = max(images.formats, key=lambda name: images.formats[name])
        text = f"image formats changed by {value:.3f} bits since training on span {reference.span}; most are {most}"
        add("drift_formats", value, histogram_limit(len(formats)), text)

    confidence, calibration = np.array(sums.confidence), reference.calibration
    confidences = confidence_histogram(confidence)
    expected = expected_interval = None
    if len(confidence):
        value = divergence(confidences, calibration.confidences)
        limit = chance.divergence_limit(len(confidences), len(confidence), calibration.tested, probability)
        add(
            "drift_confidence",
            value,
            limit,
            f"the confidence changed by {value:.3f} bits since the test set",
            fix=_GATE,
        )
        expected = float(calibration.expect(confidence).mean())
        expected_interval = calibration.interval(confidence, _LEVEL)
        loss = calibration.correct / calibration.tested - expected
        limit = chance.mean_limit(calibration.deviation, 1.0, len(confidence), calibration.tested, probability)
        text = f"the confidence predicts an accuracy of {expected:.4f}, {loss:.4f} below that on the test set"
        add("expected_accuracy_loss", loss, limit, text)
    accuracy = accuracy_interval = None
    if sums.labelled:
        accuracy = sums.correct / sums.labelled
        accuracy_interval = exact_interval(sums.correct, sums.labelled, _LEVEL)
        loss = calibration.correct / calibration.tested - accuracy
        limit = chance.accuracy_loss_limit(calibration.correct, calibration.tested, sums.labelled, probability)
        text = f"accuracy is {accuracy:.4f} on {sums.labelled:,} labelled images, {loss:.4f} below that on the test set"
        add("accuracy_loss", loss, limit, text)
    return Window(
        number=number,
        version=sums.version,
        start=moment(sums.start),
        end=moment(sums.end),
        answers=sums.answers,
        failed=sums.failed,
        invalid=sums.invalid,
        unreadable=sums.unreadable,
        latency_ms=percentiles(sums.latency_ms),
        figures=images,
        predicted=predicted,
        confidences=confidences,
        expected_accuracy=expected,
        expected_accuracy_interval=expected_interval,
        labelled=sums.labelled,
        accuracy=accuracy,
        accuracy_interval=accuracy_interval,
        findings=findings,
        unchecked=[Unchecked(check=check, reason=reason) for check, reason in reasons.items()],
        farthest=_farthest(sums, names),
    )


def _reasons(sums: Sums, reference: Reference) -> dict[str, str]:
    """Return the checks that a window cannot have, with the reason."""
    if not sums.answers:
        return dict.fromkeys(_CHECKS_OF_ANSWERS, "all requests failed: read the log of the model server")
    reasons: dict[str, str] = {}
    if not sums.images or not sums.images.usable:
        reasons |= dict.fromkeys(
            _IMAGE_CHECKS, "no answer has an image that can be used: log the images as PNG or JPEG files"
        )
    elif sums.pixels:
        # The size and format of the other images would say nothing about those that were sent as pixels.
        reasons |= dict.fromkeys(_FILE_CHECKS, "images were sent as pixels, so their files are unknown: send files")
    if not sums.predicted:
        reasons |= dict.fromkeys(_LABEL_CHECKS, "no answer has a class that the model has: log the answers")
    if not sum(reference.answers):
        reasons |= dict.fromkeys(_LABEL_CHECKS, "the model has no answer on the test set: train again")
    if not sums.confidence:
        reasons |= dict.fromkeys(
            ("drift_confidence", "expected_accuracy_loss"), "no answer has a probability: log the probabilities"
        )
    if not sums.labelled:
        reasons["accuracy_loss"] = "no answer has a true class: name a table of them with --labels"
    return reasons


def _colour_limit(reference: Reference, usable: int, trained: int, probability: float) -> float:
    """Return the limit of the change of a channel's mean, in standard deviations of its pixels."""
    channels = zip(reference.looks.colour_deviation.tolist(), reference.train.spread, strict=True)
    return max(
        chance.mean_limit(deviation, _COLOURS, usable, trained, probability / 3) / max(spread, 1e-9)
        for deviation, spread in channels
    )


def _farthest(sums: Sums, names: list[str]) -> list[FarImage]:
    return [
        FarImage(
            place=far.place,
            distance=far.distance,
            answer=names[far.predicted] if far.predicted >= 0 else "",
            picture=far.picture,
        )
        for far in sorted(sums.farthest, reverse=True)
    ]

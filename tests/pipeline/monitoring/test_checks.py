"""Windows of traffic: what raises an alert, and what does not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from components.data.gate.bounds import DataGateSettings
from components.data.ingest.tfrecord import RawExample
from components.data.statistics.figures import Totals
from components.data.statistics.measure import measure_images
from components.errors import Exit, UsageError
from pipeline.monitoring import windows as windows_module
from pipeline.monitoring.arguments import WindowSize, window_size
from pipeline.monitoring.calibration import Calibration
from pipeline.monitoring.checks import judge
from pipeline.monitoring.log_files import Problems
from pipeline.monitoring.measured import OTHER_CLASS, measure_batch
from pipeline.monitoring.reference import Looks, Reference, look_measures
from pipeline.monitoring.report import MonitorReport
from pipeline.monitoring.serving_log import Answer
from pipeline.monitoring.windows import Windows
from pipeline.settings.monitor import MonitorSettings
from tests.helpers.spans import bomb, encoded, picture
from trainer.framing import Framing

CLASSES = ["cat", "dog", "fox"]
FRAMING = Framing(32)
IMAGES = [encoded(picture(seed)) for seed in range(150)]
TESTED = 600
NOW = 200.0  # seconds since 1970
CHECKS = [
    "errors",
    "invalid_images",
    "unreadable_answers",
    "drift_colour",
    "drift_brightness",
    "drift_sharpness",
    "drift_sizes",
    "drift_formats",
    "drift_labels_linf",
    "drift_labels_js",
    "drift_confidence",
    "expected_accuracy_loss",
    "accuracy_loss",
]


@pytest.fixture(scope="module")
def reference():
    """Reference of a model that was trained on IMAGES and answers 80 % of its test set correctly."""
    examples = [(0, RawExample(b"", image, index % 3)) for index, image in enumerate(IMAGES)]
    rows = measure_images("train", "", FRAMING, examples).to_pandas()
    looks = look_measures(np.stack(rows["mean"]), np.stack(rows["mean_square"]), rows.sharpness.to_numpy())
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.6, 1, TESTED)
    return Reference(
        version=1,
        classes=CLASSES,
        span=1,
        framing=FRAMING,
        train=Totals.of(rows, 3).figures(CLASSES, 0),
        looks=Looks.of(looks),
        answers=[TESTED // 3] * 3,
        calibration=Calibration.of(confidence, generator.uniform(size=TESTED) < confidence),
    )


def traffic(count, change=lambda pixels: pixels, confidence=(0.6, 1), right=0.8, seed=1, classes=3, **values):
    """Return answers for random images, drawn as the test set of the reference was."""
    generator = np.random.default_rng(seed)
    answers = []
    for number in generator.integers(0, len(IMAGES), count).tolist():
        index, sure = int(generator.integers(classes)), generator.uniform(*confidence)
        probabilities = np.full(3, (1 - sure) / 2, np.float32)
        probabilities[index] = sure
        label = index if generator.uniform() < right else (index + 1) % 3
        image = encoded(change(picture(number))) if change else None
        answers.append(Answer("here", image=image, probabilities=probabilities, label=CLASSES[label], **values))
    return answers


def windows_of(answers, reference, size=100, settings=None, gate=None, problems=None):
    problems = problems or Problems()
    windows = Windows(1, 3, size, None, problems)
    sums = []
    for start in range(0, len(answers), 64):
        sums += windows.add(measure_batch(answers[start : start + 64], reference, {}, problems), NOW)
    sums += windows.finish()
    gate, settings = gate or DataGateSettings(), settings or MonitorSettings()
    return [judge(one, reference, number, gate, settings) for number, one in enumerate(sums, start=1)]


def alerts(windows):
    return {alert.check for window in windows for alert in window.alerts}


@pytest.mark.parametrize("size", [1, 3, 10, 100, 300])
def test_unchanged_traffic_raises_no_alert_in_windows_of_any_size(reference, size):
    windows = windows_of(traffic(300), reference, size)
    assert len(windows) == 300 // size and sum(window.answers for window in windows) == 300
    assert not any(window.alerts or window.warnings for window in windows)


def test_dark_traffic(reference):
    [window] = windows_of(traffic(300, change=lambda pixels: pixels // 3), reference, 300)
    assert {"drift_brightness", "drift_colour"} <= alerts([window])
    alert = next(alert for alert in window.alerts if alert.check == "drift_brightness")
    assert alert.value > alert.bound.stop >= 0.2 and "data_gate.drift_brightness.stop" in alert.fix
    assert len(window.farthest) == 8 and window.farthest[0].distance >= window.farthest[-1].distance
    assert window.farthest[0].picture.startswith("data:image/")


def test_open_windows_hold_no_images_and_only_the_newest_have_pictures(reference, monkeypatch):
    monkeypatch.setattr(windows_module, "PICTURED_WINDOWS", 2)
    windows = Windows(1, 3, None, 60, Problems(), keep_open=True)
    answers = [replace(answer, time=60.0 * (number // 20)) for number, answer in enumerate(traffic(100))]
    for _ in range(2):  # as logs of two servers that cover the same time
        assert not [*windows.add(measure_batch(answers, reference, {}, Problems()), NOW)]
    sums = [*windows.finish()]
    assert [len(one) for one in sums] == [40] * 5 and [len(one.farthest) for one in sums] == [8] * 5
    pictures = [{bool(far.picture) for far in one.farthest} for one in sums]
    assert pictures == [{False}] * 3 + [{True}] * 2
    assert not any(isinstance(value, bytes) for one in sums for far in one.farthest for value in far)


def test_a_single_dark_image_is_no_alert(reference):
    assert not alerts(windows_of(traffic(1, change=lambda pixels: pixels // 3), reference))


def test_larger_images(reference):
    def enlarge(pixels):
        return np.kron(pixels, np.ones((4, 4, 1), "uint8"))

    assert "drift_sizes" in alerts(windows_of(traffic(200, change=enlarge), reference, 200))
    as_pixels = traffic(200, change=enlarge, is_pixels=True)  # their size says nothing about what was sent
    [window] = windows_of(as_pixels, reference, 200)
    assert "drift_sizes" not in alerts([window])
    assert [one.check for one in window.unchecked] == ["drift_sizes", "drift_formats"]
    assert {one.reason for one in window.unchecked} == {
        "images were sent as pixels, so their files are unknown: send files"
    }


@pytest.mark.parametrize(
    "answers",
    [
        traffic(3),
        [*traffic(3), *traffic(1, is_pixels=True)],
        traffic(3, change=None),
        [Answer("x")] * 3,
        [Answer("x", image=b"GIF89a")],
        [Answer("x", class_name="cat")],
        [Answer("x", failed=True)],
    ],
    ids=["complete", "pixels", "no images", "empty", "unusable", "no probability", "failed"],
)
def test_every_check_is_done_or_named_with_its_reason(reference, answers):
    [window] = windows_of(answers, reference)
    done, named = [one.check for one in window.findings], [one.check for one in window.unchecked]
    assert sorted(done + named) == sorted(CHECKS) and all(one.reason for one in window.unchecked)
    assert json.loads(json.dumps(window.as_json()))["unchecked"] == [
        {"check": one.check, "reason": one.reason} for one in window.unchecked
    ]


def test_answers_of_one_class(reference):
    found = alerts(windows_of(traffic(300, classes=1), reference, 300))
    assert found == {"drift_labels_linf", "drift_labels_js"}


def test_unsure_answers(reference):
    [window] = windows_of(traffic(300, change=None, confidence=(0.4, 0.61), right=0.8), reference, 300)
    assert {"drift_confidence", "expected_accuracy_loss"} == alerts([window])
    assert window.figures is None and window.expected_accuracy_interval[0] < window.expected_accuracy < 0.7


def test_wrong_answers(reference):
    [window] = windows_of(traffic(300, right=0.5), reference, 300)
    assert alerts([window]) == {"accuracy_loss"}
    assert window.labelled == 300 and window.accuracy_interval[0] < window.accuracy < window.accuracy_interval[1]
    assert report([window]).exit is Exit.NOT_BLESSED


def test_failed_requests_and_unusable_images(reference):
    good = traffic(80)
    bad = [Answer("bad", image=b"GIF89a", valid=False), Answer("bad", image=bomb()), Answer("bad", valid=False)] * 8
    [window] = windows_of([*good, *bad, *[Answer("failed", failed=True)] * 25], reference, 1000)
    assert (window.answers, window.failed, window.invalid) == (104, 25, 24)
    assert alerts([window]) == {"errors", "invalid_images"}
    assert sum(window.figures.undecodable.values()) == 16
    assert report([window]).exit is Exit.DATA_REFUSED


def test_images_that_the_log_names_but_that_cannot_be_read(reference):
    answers = [replace(answer, image=None, lost_image=True) for answer in traffic(80)]
    [window] = windows_of(answers, reference, 1000)
    assert window.invalid == 80 and window.figures is None and alerts([window]) == {"invalid_images"}


def test_malformed_probabilities(reference):
    malformed = np.empty(0, np.float32)
    [window] = windows_of([replace(answer, probabilities=malformed) for answer in traffic(80)], reference, 1000)
    assert window.unreadable == 80 and window.labelled == 0 and alerts([window]) == {"unreadable_answers"}


def test_bounds_can_be_raised_or_disabled(reference):
    gate = DataGateSettings(drift_brightness={"stop": None, "warn": None}, drift_colour={"warn": 9, "stop": 9})
    dark = traffic(300, change=lambda pixels: pixels // 3)
    assert not {"drift_brightness", "drift_colour"} & alerts(windows_of(dark, reference, 300, gate=gate))


def test_classes_that_the_model_does_not_have(reference):
    problems = Problems()
    answers = [
        Answer("a", class_name="zebra"),
        Answer("b", class_name="dog", confidence=0.9, label="zebra"),
        Answer("c", probabilities=np.float32([0.5, 0.5])),
        Answer("d", probabilities=np.float32([np.nan, 0, 1])),
        Answer("e", probabilities=np.float32([5, 0, 1])),
    ]
    measured = measure_batch(answers, reference, {}, problems)
    assert [one.index for one in measured] == [-1, 1, -1, -1, -1] and measured[1].label == OTHER_CLASS
    assert sorted(problems.counts.values()) == [1, 1, 3]
    assert sorted(places[0] for places in problems.places.values()) == ["a 'zebra'", "b 'zebra'", "c"]


def test_labels_that_come_later(reference):
    [answer] = traffic(1)
    later = Answer("x", image=answer.image, probabilities=answer.probabilities)
    [measured] = measure_batch([later], reference, {later.digest: "fox"}, Problems())
    assert measured.label == 2


def test_windows_of_time(reference):
    problems = Problems()
    windows = Windows(1, 3, None, 60, problems)
    times = [0, 59, 60, 30, 119, 181, 10, 200]
    answers = [Answer(f"at {time}", time=time) for time in times]
    complete = [*windows.add(measure_batch(answers, reference, {}, problems), NOW)]
    assert [(sums.start, sums.end, len(sums)) for sums in complete] == [(0, 59, 3), (60, 119, 2)]
    assert [len(sums) for sums in windows.finish()] == [2]
    assert [*problems.places.values()] == [["at 10"]]


def test_sizes_of_windows():
    assert window_size("500") == WindowSize(500, None) and window_size("30m") == WindowSize(None, 1800)
    for wrong in ("0", "1.5", "-1", "1w", "99999999", "h", ""):
        with pytest.raises(UsageError):
            window_size(wrong)


def report(windows):
    values = {"pipeline": "x", "created": "2026-01-01T00:00:00Z", "logs": "x", "false_alerts": 0.001, "problems": []}
    return MonitorReport(windows=windows, **values)


def test_a_report_has_the_first_alert_of_each_version(reference):
    dark, *_ = windows_of(traffic(100, change=lambda pixels: pixels // 3), reference)
    usual, *_ = windows_of(traffic(100), reference)
    versions = [usual, dark, dark, usual.model_copy(update={"version": 2}), dark.model_copy(update={"version": 3})]
    windows = [window.model_copy(update={"number": number}) for number, window in enumerate(versions, start=1)]
    found = report(windows)
    assert [*found.version_alerts] == ["1", "3"] and found.first_alert == found.version_alerts["1"]
    assert found.first_alert.startswith("window 2 of version 1: drift_")
    assert found.version_alerts["3"].startswith("window 5 of version 3: drift_")
    assert (report([usual]).version_alerts, report([usual]).first_alert) == ({}, "")

import pytest

from components.data.gate.bounds import CHECKS, UNUSABLE, Bound, DataGateSettings
from components.data.gate.checks import judge
from components.data.labels.suspects import LabelFigures
from components.data.statistics.figures import ImageFigures, Leak, SplitFigures

SETTINGS = DataGateSettings()


def split(**changes):
    defaults = {
        "images": 300,
        "bytes": 1,
        "undecodable": {},
        "outside_labels": 0,
        "duplicates": 0,
        "labels": {"cat": 100, "dog": 100, "fox": 100},
        "formats": {"PNG RGB": 300},
        "sizes": {"32x32": 300},
        "different_sizes": 1,
        "smallest_side": 32,
        "mean": [120.0, 120.0, 120.0],
        "spread": [60.0, 60.0, 60.0],
        "brightness": [0, 150, 150],
        "sharpness": [0, 300],
        "sides": [0, 300],
    }
    return SplitFigures(**(defaults | changes))


def figures(train=None, val=None, test=None, leaks=(), span=1, repeated_ids=0, image_size=32):
    splits = {"train": train or split(), "val": val or split(), "test": test or split()}
    return ImageFigures(
        span=span, gate_span=1, image_size=image_size, splits=splits, repeated_ids=repeated_ids, leaks=list(leaks)
    )


def of(verdict, check):
    [finding] = [finding for finding in verdict.findings if finding.check == check]
    return finding


def stopped(verdict):
    return [finding.check for finding in verdict.findings_at("stop")]


def test_good_data_passes_and_every_check_except_drift_is_listed():
    verdict = judge(SETTINGS, figures(), [])
    assert verdict.passed and verdict.previous_span is None
    assert sorted(finding.check for finding in verdict.findings) == sorted(
        name for name in (*CHECKS, *UNUSABLE) if not name.startswith("drift") and name != "wrong_labels"
    )
    assert {finding.level for finding in verdict.findings} == {"ok"}


def test_the_share_of_wrong_labels_is_checked_if_the_labels_were():
    bound = {"wrong_labels": Bound(warn=0.02, stop=0.05)}
    levels = [
        of(judge(SETTINGS.model_copy(update=bound), figures(), [], labels=labels), "wrong_labels").level
        for labels in (LabelFigures(folds=3, epochs=5, images=900, wrong=wrong) for wrong in (0.02, 0.03, 0.06))
    ]
    assert levels == ["ok", "warning", "stop"]


def test_labels_that_could_not_be_checked_are_past_a_bound():
    problem = LabelFigures(folds=3, epochs=5, problem="9 images are fewer than 3 for each of 5 classes")
    for bound, level in (Bound(stop=0.1), "stop"), (Bound(warn=0.1), "warning"):
        finding = of(
            judge(SETTINGS.model_copy(update={"wrong_labels": bound}), figures(), [], labels=problem), "wrong_labels"
        )
        assert finding.level == level and problem.problem in finding.text


def test_remarks_are_warnings_with_a_count_and_a_fix():
    verdict = judge(
        SETTINGS, figures(train=split(remarks={"one_colour": 5}), test=split(remarks={"one_colour": 1})), []
    )
    assert verdict.passed and [finding.check for finding in verdict.findings_at("warning")] == ["one_colour"]
    finding = of(verdict, "one_colour")
    assert finding.value == 6 and finding.text.startswith("5 in train, 1 in test: every pixel has the same colour")
    assert "remove such images" in finding.text


@pytest.mark.parametrize(
    "found, check, words",
    [
        (figures(train=split(undecodable={"does not decode": 2})), "undecodable", "2 in train: does not decode"),
        (figures(test=split(undecodable={"larger": 1})), "undecodable", "1 in test: larger"),
        (figures(val=split(outside_labels=3)), "outside_labels", "3 labels are not from 0 to 2"),
        (figures(repeated_ids=1), "repeated_ids", "1 examples have the id of an earlier example"),
        (
            figures(val=split(labels={"cat": 300, "dog": 0, "fox": 0})),
            "missing_classes",
            "no image of 'dog' in val, 'fox' in val",
        ),
        (figures(test=split(smallest_side=1)), "image_side", "a side of 1 pixels, in test, allowed is at least 8"),
        (figures(train=split(labels={"cat": 299, "dog": 1, "fox": 5})), "class_examples", "'dog' has 1 images"),
        (
            figures(train=split(labels={"cat": 9000, "dog": 50, "fox": 900})),
            "imbalance",
            "'cat' has 180.0 times the images of 'dog'",
        ),
        (figures(train=split(duplicates=90)), "duplicates", "90 images in train repeat an earlier image (0.3000)"),
        (
            figures(leaks=[Leak(source="train", target="test", exact=1, near=0)]),
            "exact_leaks",
            "1 of test in train, allowed is at most 0",
        ),
        (
            figures(leaks=[Leak(source="train", target="test", exact=0, near=30)]),
            "near_leaks",
            "30 of test in train (0.1000), allowed is at most 0.05",
        ),
    ],
)
def test_a_finding_that_stops_names_value_and_bound(found, check, words):
    verdict = judge(SETTINGS, found, [], examples={check: ["'a.png'"]})
    assert check in stopped(verdict) and not verdict.passed
    line = str(of(verdict, check))
    assert line.startswith(f"{check}: ") and words in line and "first: 'a.png'" in line


def test_an_anomaly_stops_with_the_description_of_tfdv():
    verdict = judge(SETTINGS, figures(), ["label in train: Out-of-range values"])
    assert stopped(verdict) == ["anomalies"]
    assert "Out-of-range values" in str(of(verdict, "anomalies"))


def test_a_value_between_the_thresholds_warns_and_a_value_on_the_threshold_is_ok():
    leak = [Leak(source="train", target="test", exact=0, near=9)]
    verdict = judge(SETTINGS, figures(leaks=leak), [])
    assert verdict.passed and of(verdict, "near_leaks").level == "warning"
    assert "allowed is at most 0.01" in str(of(verdict, "near_leaks"))
    on_it = DataGateSettings(near_leaks=Bound(warn=0.03, stop=0.03))
    assert of(judge(on_it, figures(leaks=leak), []), "near_leaks").level == "ok"


def test_accepting_one_check_does_not_accept_the_others():
    bad = figures(repeated_ids=1, leaks=[Leak(source="train", target="test", exact=1, near=0)])
    verdict = judge(SETTINGS, bad, [], accepted={"exact_leaks": "known and harmless"})
    assert stopped(verdict) == ["repeated_ids"]
    assert of(verdict, "exact_leaks").level == "accepted"
    assert "accepted: known and harmless" in str(of(verdict, "exact_leaks"))
    assert judge(SETTINGS, bad, [], accepted={"exact_leaks": "a", "repeated_ids": "b"}).passed


def test_images_that_do_not_decode_cannot_be_accepted():
    bad = figures(train=split(undecodable={"does not decode": 2}))
    assert stopped(judge(SETTINGS, bad, [], accepted={"undecodable": "so"})) == ["undecodable"]


def test_the_number_of_left_out_examples_is_reported():
    verdict = judge(SETTINGS, figures(), [], left_out=305)
    assert verdict.passed
    assert "305 examples are left out" in str(of(verdict, "near_leaks"))


def test_a_class_may_have_any_name():
    odd = split(labels={"a{b}": 300, "%s": 100})
    verdict = judge(SETTINGS, figures(train=odd), [], previous=figures(train=split(labels={"a{b}": 100, "%s": 300})))
    assert "'a{b}'" in str(of(verdict, "drift_labels_linf"))


def test_drift_of_what_the_model_sees_is_not_measured_between_different_framings():
    before = figures(train=split(mean=[9.0, 9.0, 9.0], brightness=[300, 0, 0]))
    checks = {
        finding.check
        for finding in judge(SETTINGS, figures().model_copy(update={"resize": "pad"}), [], before).findings
        if finding.check.startswith("drift")
    }
    assert checks == {"drift_labels_linf", "drift_labels_js", "drift_sizes"}


def test_an_equal_span_has_not_drifted():
    verdict = judge(SETTINGS, figures(span=2), [], previous=figures(span=1))
    assert verdict.previous_span == 1
    drift = [finding for finding in verdict.findings if finding.check.startswith("drift")]
    assert len(drift) == 6 and all(finding.value == 0 for finding in drift)


@pytest.mark.parametrize(
    "change, check, value, words",
    [
        (
            {"labels": {"cat": 200, "dog": 50, "fox": 50}},
            "drift_labels_linf",
            1 / 3,
            "share of 'cat' went from 0.333 to 0.667",
        ),
        (
            {"labels": {"cat": 300, "dog": 0, "fox": 0}},
            "drift_labels_js",
            0.459,
            "the distribution of labels changed by 0.459 bits",
        ),
        ({"mean": [120.0, 120.0, 180.0]}, "drift_colour", 1.0, "mean blue went from 120.0 to 180.0"),
        ({"brightness": [300, 0, 0]}, "drift_brightness", 1.0, "brightness changed by 1.000 bits"),
        ({"sharpness": [300, 0]}, "drift_sharpness", 1.0, "sharpness changed by 1.000 bits"),
        ({"sides": [300, 0]}, "drift_sizes", 1.0, "image sizes changed by 1.000 bits"),
    ],
)
def test_drift_is_measured_against_the_previous_span(change, check, value, words):
    verdict = judge(SETTINGS, figures(train=split(**change), span=3), [], previous=figures(span=1))
    finding = of(verdict, check)
    assert finding.level == "stop" and finding.value == pytest.approx(value, abs=1e-3)
    assert words in str(finding) and "since span 1" in str(finding)


def test_sharpness_is_not_compared_between_image_sizes():
    verdict = judge(SETTINGS, figures(train=split(sharpness=[300, 0]), image_size=64), [], previous=figures())
    assert verdict.passed and "drift_sharpness" not in [finding.check for finding in verdict.findings]


def test_setting_one_threshold_leaves_the_other_at_its_default():
    settings = DataGateSettings.model_validate({"near_leaks": {"stop": 0.5}})
    assert settings.near_leaks == Bound(warn=0.01, stop=0.5)
    assert DataGateSettings.model_validate({"near_leaks": {"warn": None}}).near_leaks == Bound(warn=None, stop=0.05)

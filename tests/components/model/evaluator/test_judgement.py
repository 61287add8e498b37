from components.model.evaluator.judgement import Comparison, GateSettings, ModelFigures, judge

BOUNDS = GateSettings(accuracy=0.8, class_accuracy=0.5, calibration=0.1, tolerance=0.02)


def figures(accuracy=0.85, calibration_error=0.05, **classes):
    classes = classes or {"cat": 0.9, "dog": 0.8}
    return ModelFigures(
        classes=list(classes),
        examples=100,
        accuracy=accuracy,
        accuracy_interval=(accuracy - 0.05, accuracy + 0.05),
        top_3=1.0,
        log_loss=0.5,
        calibration_error=calibration_error,
        class_accuracy=classes,
        class_accuracy_interval={name: (value - 0.1, value + 0.1) for name, value in classes.items()},
        class_precision=classes,
        looks_accuracy={},
        confusion=[[30, 10], [5, 55]],
    )


def difference(low, high):
    return Comparison(examples=100, gained=3, lost=9, difference=(low + high) / 2, interval=(low, high))


def failed(judgement):
    return [check.name for check in judgement.checks if not check.passed]


def test_a_first_model_needs_no_baseline():
    assert judge(BOUNDS, figures()).blessed


def test_low_accuracy_is_reported_with_its_interval():
    judgement = judge(BOUNDS, figures(accuracy=0.79))
    assert failed(judgement) == ["accuracy"]
    assert str(judgement.checks[0]) == "accuracy 0.7900 is below 0.8000 (0.7400 to 0.8400)"


def test_one_bad_class_fails_and_is_named():
    judgement = judge(BOUNDS, figures(accuracy=0.9, cat=1.0, dog=0.4))
    assert failed(judgement) == ["worst class accuracy"]
    assert str(judgement.checks[1]) == "worst class accuracy 0.4000 is below 0.5000 (dog; 0.3000 to 0.5000)"


def test_an_overconfident_model_fails_calibration():
    judgement = judge(BOUNDS, figures(calibration_error=0.11))
    assert failed(judgement) == ["calibration error"]
    assert str(judgement.checks[2]) == "calibration error 0.1100 is above 0.1000"


def test_a_value_on_the_bound_passes():
    assert judge(BOUNDS, figures(accuracy=0.8, calibration_error=0.1, cat=0.5, dog=1.0)).blessed


def test_a_float32_value_on_the_bound_passes():
    """162 correct answers of 180, computed in float32."""
    assert judge(GateSettings(accuracy=0.9), figures(accuracy=0.8999999761581421)).blessed


def test_a_loss_above_the_tolerance_fails():
    judgement = judge(BOUNDS, figures(), figures(accuracy=0.9), difference(-0.08, -0.01))
    assert failed(judgement) == ["accuracy against the serving model"]
    assert str(judgement.checks[3]) == (
        "accuracy against the serving model -0.0450 is below -0.0200 "
        "(0.8500 against 0.9000, 3 examples gained, 9 lost; -0.0800 to -0.0100)"
    )


def test_a_loss_within_the_tolerance_passes():
    assert judge(BOUNDS, figures(), figures(accuracy=0.86), difference(-0.02, -0.005)).blessed


def test_a_loss_that_may_be_chance_does_not_block_and_is_reported():
    judgement = judge(BOUNDS, figures(), figures(accuracy=0.9), difference(-0.11, 0.01))
    assert judgement.blessed
    assert "is below -0.0200, which may be noise (" in str(judgement.checks[3])


def test_too_few_images_for_the_tolerance_are_a_warning():
    judgement = judge(BOUNDS, figures(), figures(), difference(-0.03, 0.02))
    assert judgement.blessed
    assert judgement.warnings == [
        "100 test images are too few to tell a loss of 0.0200 (gate.tolerance) from chance: the difference from the "
        "serving model is known to within 0.0250; use more test images, or a larger tolerance"
    ]
    assert judge(BOUNDS, figures(), figures(), difference(-0.02, 0.019)).warnings == []
    assert judge(BOUNDS, figures()).warnings == []


def test_a_blessed_model_that_may_be_no_better_than_a_constant_answer_is_a_warning():
    """60 of the 100 images are dogs."""
    low = GateSettings(accuracy=0.5)
    assert judge(low, figures(accuracy=0.651)).warnings == judge(BOUNDS, figures(accuracy=0.649)).warnings == []
    assert judge(low, figures(accuracy=0.649)).warnings == [
        "accuracy 0.6490 may be no better than chance: a model that answers dog to every image has 0.6000; "
        "set gate.accuracy above that"
    ]


def test_a_missing_comparison_with_the_serving_model_is_a_warning():
    judgement = judge(BOUNDS, figures(), incomparable="it has 3 classes and the data 2")
    assert judgement.blessed
    assert judgement.warnings == ["not compared with the serving model: it has 3 classes and the data 2"]


def test_a_comparison_on_shared_classes_is_reported_and_judged():
    worse = difference(-0.3, -0.1).model_copy(
        update={"examples": 60, "shared": ("cat", "dog"), "accuracies": (0.7, 0.9)}
    )
    judgement = judge(BOUNDS, figures(), None, worse)
    assert failed(judgement) == ["accuracy against the serving model"]
    scope = "on the 60 test images of the classes that both know (cat, dog)"
    assert f"(0.7000 against 0.9000 {scope}, 3 examples gained, 9 lost; " in str(judgement.checks[3])
    assert judgement.warnings[0].startswith(f"the serving model has other classes: the two are compared only {scope};")
    assert type(judgement).model_validate_json(judgement.model_dump_json()) == judgement
    many = worse.model_copy(update={"shared": tuple("abcdefg")})
    assert many.scope.endswith("(a, b, c, d, e and 2 more)")

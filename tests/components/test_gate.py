from components.gate import Figures, GateSettings, judge

BOUNDS = GateSettings(accuracy=0.8, class_accuracy=0.5, tolerance=0.02)
GOOD = Figures(accuracy=0.85, class_accuracy={"cat": 0.9, "dog": 0.8})


def failed(judgement):
    return [check.name for check in judgement.checks if not check.passed]


def test_a_first_model_needs_no_baseline():
    assert judge(BOUNDS, GOOD, None).blessed


def test_too_low_overall():
    low = Figures(accuracy=0.79, class_accuracy={"cat": 0.79, "dog": 0.79})
    judgement = judge(BOUNDS, low, None)
    assert not judgement.blessed
    assert failed(judgement) == ["accuracy"]
    assert str(judgement.checks[0]) == "accuracy 0.7900 is below 0.8000"


def test_one_bad_class_is_enough_and_is_named():
    uneven = Figures(accuracy=0.9, class_accuracy={"cat": 1.0, "dog": 0.4})
    judgement = judge(BOUNDS, uneven, None)
    assert failed(judgement) == ["worst class accuracy"]
    assert "dog" in str(judgement.checks[1])


def test_a_value_on_the_bound_passes():
    exact = Figures(accuracy=0.8, class_accuracy={"cat": 0.5, "dog": 1.0})
    assert judge(BOUNDS, exact, None).blessed


def test_a_float32_value_on_the_bound_passes():
    """What TFMA reports for 162 right answers of 180."""
    exact = Figures(accuracy=0.8999999761581421, class_accuracy={"cat": 0.5, "dog": 1.0})
    assert judge(GateSettings(accuracy=0.9), exact, None).blessed


def test_worse_than_the_serving_model_by_more_than_the_tolerance():
    serving = Figures(accuracy=0.88, class_accuracy={"cat": 0.88, "dog": 0.88})
    judgement = judge(BOUNDS, GOOD, serving)
    assert failed(judgement) == ["accuracy against the serving model"]
    assert "serving 0.8800" in str(judgement.checks[2])


def test_slightly_worse_than_the_serving_model_is_within_the_tolerance():
    serving = Figures(accuracy=0.86, class_accuracy={"cat": 0.88, "dog": 0.88})
    assert judge(BOUNDS, GOOD, serving).blessed

"""Numbers with their nouns."""

from components.quantities import quantity


def test_the_singular_is_used_for_one():
    numbers = (0, 1, 2, 1000, None, "many")
    assert [quantity(number, "alert") for number in numbers] == [
        "0 alerts",
        "1 alert",
        "2 alerts",
        "1,000 alerts",
        "None alerts",
        "many alerts",
    ]

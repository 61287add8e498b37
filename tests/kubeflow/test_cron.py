"""Cron expressions and intervals of a schedule."""

import pytest

from components.errors import UsageError
from kubeflow.cron import seconds, six_fields


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("30 0 3 * * *", "30 0 3 * * *"),
        (" */15  8-18/2 ? JAN,jul mon-FRI ", "0 */15 8-18/2 ? JAN,jul mon-FRI"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),  # every four years
        ("0 0 31 2 1", "0 0 0 31 2 1"),  # on Mondays: either of the two days matches
        ("5/20 * * * *", "0 5/20 * * * *"),
    ],
)
def test_six_fields_adds_the_second_to_five_fields(cron, expected):
    assert six_fields(cron) == expected


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 3 * *", "wrong number of fields, 4"),
        ("@daily", "wrong number of fields, 1"),
        ("60 3 * * *", "'60' is not a valid minute. Allowed are 0 to 59"),
        ("0 24 * * *", "'24' is not a valid hour"),
        ("0 3 0 * *", "'0' is not a valid day of the month. Allowed are 1 to 31"),
        ("0 3 * 13 *", "'13' is not a valid month. Allowed are 1 to 12, or jan to dec"),
        ("0 3 * * 7", "'7' is not a valid day of the week. Allowed are 0 to 6, or sun to sat"),
        ("0 3 * * funday", "'funday' is not a valid day of the week"),
        ("0 18-8 * * *", "'18-8' is not a valid hour. Allowed are 0 to 23"),
        ("*/0 * * * *", r"'\*/0' is not a valid minute"),
        ("0 3,, * * *", "'' is not a valid hour"),
        ("a-b-c * * * *", "'a-b-c' is not a valid minute"),
        ("0 3 L * *", "'L' is not a valid day of the month"),  # Kubeflow does not accept these three either
        ("0 3 * * 5#2", "'5#2' is not a valid day of the week"),
        ("0 3 * * sun-7", "'sun-7' is not a valid day of the week"),
        ("0 3 30 2 *", "would never start a run"),
        ("0 3 31 4,6 *", "would never start a run"),
    ],
)
def test_an_invalid_cron_expression_is_rejected(cron, message):
    with pytest.raises(UsageError, match=message):
        six_fields(cron)


def test_seconds_of_an_interval():
    assert [seconds(text) for text in ("90m", "6h", "2d", "1d12h30m")] == [5400, 21600, 172800, 131400]
    for text, message in (
        ("6", "write minutes, hours or days"),
        ("", "write"),
        ("h6", "write"),
        ("0m", "minimum of 1m"),
    ):
        with pytest.raises(UsageError, match=message):
            seconds(text)

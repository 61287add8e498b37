import pytest

from components.errors import UsageError
from kubeflow.cron import seconds, six_fields


@pytest.mark.parametrize(
    ("given", "six"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("30 0 3 * * *", "30 0 3 * * *"),
        (" */15  8-18/2 ? JAN,jul mon-FRI ", "0 */15 8-18/2 ? JAN,jul mon-FRI"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),  # each four years
        ("0 0 31 2 1", "0 0 0 31 2 1"),  # on Mondays: one of the two days is enough
        ("5/20 * * * *", "0 5/20 * * * *"),
    ],
)
def test_five_fields_are_six_with_the_second_0(given, six):
    assert six_fields(given) == six


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0 3 * *", "it has 4 fields"),
        ("@daily", "it has 1 fields"),
        ("60 3 * * *", "'60' is no minute; it goes from 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 3 0 * *", "'0' is no day of the month; it goes from 1 to 31"),
        ("0 3 * 13 *", "'13' is no month; it goes from 1 to 12, or jan to dec"),
        ("0 3 * * 7", "'7' is no day of the week; it goes from 0 to 6, or sun to sat"),
        ("0 3 * * funday", "'funday' is no day of the week"),
        ("0 18-8 * * *", "'18-8' is no hour; it goes from 0 to 23"),
        ("*/0 * * * *", r"'\*/0' is no minute"),
        ("0 3,, * * *", "'' is no hour"),
        ("a-b-c * * * *", "'a-b-c' is no minute"),
        ("0 3 L * *", "'L' is no day of the month"),  # nor does Kubeflow know these three
        ("0 3 * * 5#2", "'5#2' is no day of the week"),
        ("0 3 * * sun-7", "'sun-7' is no day of the week"),
        ("0 3 30 2 *", "never"),
        ("0 3 31 4,6 *", "never"),
    ],
)
def test_what_is_no_cron_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        six_fields(given)


def test_every():
    assert [seconds(text) for text in ("90m", "6h", "2d", "1d12h30m")] == [5400, 21600, 172800, 131400]
    for text, message in (("6", "write minutes, hours or days"), ("", "write"), ("h6", "write"), ("0m", "at least 1m")):
        with pytest.raises(UsageError, match=message):
            seconds(text)

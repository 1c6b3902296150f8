import pytest

from tests.report.made_up import difference, interval
from univert.metrics.evaluate import Interval
from univert.report import number_format as words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.percent(0.5123), "51.2"),
        (words.percent(None), "\N{EN DASH}"),
        (words.points(0.1021), "+10.2"),
        (words.points(-0.012), "\N{MINUS SIGN}1.2"),
        (words.points(-0.0004), "\N{PLUS-MINUS SIGN}0.0"),
        (words.interval(interval(0.5)), "48.0\N{EN DASH}52.0"),
        (words.interval(Interval(0.5)), ""),
        (words.change_interval(difference(0.03)), "+1.0 to +5.0"),
        (words.count(1, "query"), "1 query"),
        (words.count(1204, "query"), "1,204 queries"),
        (words.count(3), "3"),
        (words.count(None), "\N{EN DASH}"),
        (words.duration(3.14), "3.1 s"),
        (words.duration(59.7), "1 min 0 s"),
        (words.duration(192), "3 min 12 s"),
        (words.duration(7300), "2 h 1 min"),
        (words.listing([]), ""),
        (words.listing(["a"]), "a"),
        (words.listing(["a", "b", "c"]), "a, b and c"),
        (words.listing(["a", "b", "c", "d"], most=3), "a, b and 2 more"),
    ],
)
def test_numbers_as_people_read_them(text, expected):
    assert text == expected

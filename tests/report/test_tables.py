import pytest

from tests.report.comparison import full_comparison, interval, results, row
from univert.core.errors import BadInputError
from univert.metrics.figures import Interval
from univert.report.tables import comparison_table, lie_apart, read_rows, vertical_table


def rows_of(*rows):
    return read_rows(results(list(rows)))


def test_comparison_has_every_figure_and_marks_the_best_that_competes():
    rows = rows_of(row("base", 0.3, {"a": 0.4}), row("specialists", 0.9, {"a": 0.6}), row("unified", 0.5, {"a": 0.5}))
    table = comparison_table(rows)
    assert table.columns == ("R@1", "R@2", "R@4", "R@8", "MAP@R", "NMI", "Mean within R@1")
    best = [[cell.best for cell in line.cells] for line in table.lines]
    assert [line[0] for line in best] == [False, False, True]  # the specialists are told the vertical
    assert [line[-1] for line in best] == [False, True, False]  # within a vertical that is no help
    assert [line.row.routed for line in table.lines] == [False, True, False]
    assert all(line.cells[5].interval is None for line in table.lines)
    assert table.lines[0].cells[1].interval == interval(0.35)


def test_ties_as_displayed_share_the_first_place():
    table = comparison_table(rows_of(row("base", 0.50004, {"a": 0.1}), row("unified", 0.5, {"a": 0.1})))
    assert [line.cells[0].best for line in table.lines] == [True, True]


def test_vertical_table_shows_gaps_to_the_specialists():
    rows = rows_of(row("specialists", 0.5, {"b": 0.5, "a": 0.4}), row("unified", 0.5, {"b": 0.6, "a": None}))
    table = vertical_table(rows)
    assert [line.name for line in table.lines] == ["a", "b"]
    (own, none), (specialist, unified) = table.lines[0].cells, table.lines[1].cells
    assert own.interval is not None
    assert none.interval is None
    assert specialist.gap is None
    assert unified.gap == pytest.approx(0.1)
    assert unified.gap_is_clear
    assert unified.best


def test_missing_rows_and_null_figures():
    assert comparison_table([]).lines == ()
    assert vertical_table([]).lines == ()
    table = comparison_table(rows_of(row("unified", None, {"a": None})))
    assert all(cell.interval is None and not cell.best for cell in table.lines[0].cells)
    assert len(vertical_table(rows_of(*full_comparison())).lines) == 2


@pytest.mark.parametrize("content", [{}, {"rows": [{}]}, {"rows": [{"key": "a", "evaluation": None}]}, {"rows": ["a"]}])
def test_what_is_no_evaluation_is_refused(content):
    with pytest.raises(BadInputError, match=r"not the content of an evaluation\.json"):
        read_rows(content)


def test_intervals_lie_apart_or_not():
    assert lie_apart(interval(0.1), interval(0.2)) is True
    assert lie_apart(interval(0.2), interval(0.1)) is True
    assert lie_apart(interval(0.1), interval(0.13)) is False
    assert lie_apart(interval(0.1), Interval(0.5)) is None

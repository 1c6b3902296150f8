from dataclasses import replace

import pytest

from tests.report import made_up
from tests.report.made_up import comparison, interval, model
from univert.report.tables import comparison_table, gallery_lines, vertical_table


def test_comparison_has_every_figure_and_marks_the_best_that_competes():
    models = [model("base", 0.3, {"a": 0.4}), model("specialists", 0.9, {"a": 0.6}), model("unified", 0.5, {"a": 0.5})]
    columns, lines = comparison_table(models)
    assert columns == ("R@1", "R@2", "R@4", "R@8", "MAP@R", "NMI", "Mean within R@1")
    best = [[cell.best for cell in cells] for _, cells in lines]
    assert [line[0] for line in best] == [False, False, True]  # the specialists are told the vertical
    assert [line[-1] for line in best] == [False, True, False]  # within a vertical that is no help
    assert all(cells[5].interval is None for _, cells in lines)
    assert lines[0][1][1].interval == interval(0.35)


def test_brands_never_seen_have_columns_where_there_are_queries_of_them():
    models = [made_up.with_unseen_brands(model(key, 0.5, {"a": 0.4}), 0.2 + at / 10) for at, key in enumerate("xy")]
    columns, lines = comparison_table([*models, model("z", 0.4, {"a": 0.4})])
    assert columns[6:] == ("Brands never seen, R@1", "Brands never seen, MAP@R", "Mean within R@1")
    assert [cells[6].interval and cells[6].interval.value for _, cells in lines] == [0.2, pytest.approx(0.3), None]
    assert [cells[6].best for _, cells in lines] == [False, True, False]
    found = comparison((0.01, "same"), a=(0.06, "better"))
    unseen = made_up.figures(-0.1, "worse")
    names = gallery_lines(replace(found, unseen_brands=unseen), routed=False)
    assert names[1:] == [("Brands never seen", unseen), ("a", found.verticals["a"])]


def test_ties_as_displayed_share_the_first_place():
    _, lines = comparison_table([model("base", 0.50004, {"a": 0.1}), model("unified", 0.5, {"a": 0.1})])
    assert [cells[0].best for _, cells in lines] == [True, True]


def test_vertical_table_shows_gaps_to_the_specialists():
    models = [model("specialists", 0.5, {"a": 0.4, "b": 0.5}), model("unified", 0.5, {"a": None, "b": 0.6})]
    first, second = vertical_table(models)
    assert [line[:2] for line in (first, second)] == [("a", 0), ("b", 40)]
    own, none = first[2]
    assert own.interval is not None
    assert none.interval is None
    specialist, unified = second[2]
    assert specialist.gap is None
    assert unified.gap == pytest.approx(0.1)
    assert unified.best


def test_paired_comparisons_go_on_by_gain():
    found = comparison((0.01, "same"), a=(-0.04, "worse"), b=(0.06, "better"), c=(0.0, "same"))
    assert [name for name, _ in gallery_lines(found, routed=False)] == ["Merged gallery", "b", "c", "a"]
    assert gallery_lines(found, routed=True)[0] == ("All, each in its vertical", found.merged)

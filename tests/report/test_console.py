from tests.report import decisions
from univert.core.terminal import table_text
from univert.report.console import choice_table, combination_table, comparison_table


def test_a_comparison_has_a_line_a_gallery_and_says_who_is_who():
    found = decisions.comparison((0.03, "better"), bags=(-0.04, "worse"), shoes=(-0.0001, "same"))
    text = table_text(comparison_table(found, titles=("runs/[old]/unified", "runs/new")))
    assert "A: runs/[old]/unified. B: runs/new." in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["bags"].split()[1:7] == ["50.0", "46.0", "-4.0", "-6.0", "-2.0", "0.400"]
    assert lines["bags"].split()[7] == "worse"
    assert "+0.0" in lines["shoes"]
    assert "better" in lines["merged"]
    assert all(len(line) <= 110 for line in text.splitlines())


def test_a_combination_says_what_was_tried_and_the_groups():
    text = table_text(combination_table(decisions.combination(names=("bags", "[shoes]", "hats"))))
    assert "bags and 1 more" in text
    assert "[shoes] -9.0" in text
    assert ("accepted" in text, "refused" in text) == (True, True)
    assert "1: bags, [shoes]" in text
    assert "2: hats" in text


def test_a_combination_without_trials_or_queries():
    off = {"individual": {"a": {"recall_at_1": None}}, "trials": [], "groups": [["a"]]}
    assert "1: a" in table_text(combination_table(off))
    blind = decisions.trial(1, ["a"], "b", {}, accepted=True)
    assert "accepted" in table_text(combination_table({**off, "trials": [blind]}))


def test_a_choice_says_why():
    text = table_text(choice_table(decisions.choice(titles=("Plain [x]", "Ensemble"))))
    assert "Ensemble against Plain [x]: taken; better and nowhere worse" in text
    assert "Chosen: Ensemble: better and nowhere worse" in text
    assert "41.0" in text
    without = {**decisions.choice(), "steps": []}
    without["candidates"] = [{"key": "ensemble", "title": "Ensemble"}]
    assert "Chosen: Ensemble" in table_text(choice_table(without))

from dataclasses import replace

from tests.report import made_up
from tests.tables import table_text
from univert.report.console import (
    choice_table,
    combination_table,
    comparison_table,
    evaluation_table,
    reproduction_table,
    results_table,
)

MINUS = "\N{MINUS SIGN}"


def test_results_say_who_was_told_the_vertical():
    below = made_up.against("base", made_up.comparison(bags=(-0.2, "worse")), second="specialists")
    text = table_text(results_table(made_up.all_models(), [below]))
    assert f"1 of 1 specialists: bags ({MINUS}20.0)." in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["Specialists*"][1:] == ["35.0", "33.0\N{EN DASH}37.0", "50.0", "31.5", "40.0"]
    assert lines["Unified"][1] == "60.0"


def test_brands_never_seen_are_told_apart():
    models = [made_up.with_unseen_brands(one, 0.2) for one in made_up.all_models()]
    text = table_text(results_table(models))
    lines = [line.split() for line in text.splitlines() if "brands never seen" in line]
    assert lines == len(models) * [["brands", "never", "seen", "20.0", "18.0\N{EN DASH}22.0", "35.0", "18.0"]]
    rows = table_text(evaluation_table(models[0].evaluation, models[1].evaluation)).splitlines()
    assert [row.strip().split("  ")[0] for row in rows[-2:]] == ["brands never seen", "brands never seen, untrained"]


def test_an_evaluation_has_a_line_a_vertical():
    text = table_text(evaluation_table(made_up.model("a", 0.5, {"[bags]": 0.6, "hats": None}).evaluation))
    assert "[bags]" in text
    assert "no queries" in text
    assert "untrained" not in text
    model, base = (made_up.model("a", merged, {"bags": 0.6}).evaluation for merged in (0.5, 0.4))
    lines = table_text(evaluation_table(model, base)).splitlines()
    assert lines[-1].split()[:5] == ["merged,", "untrained", "base", "network", "40.0"]


def test_a_comparison_has_a_line_a_gallery_and_says_who_is_who():
    found = made_up.comparison((0.03, "better"), bags=(-0.04, "worse"), shoes=(-0.0001, "same"))
    text = table_text(comparison_table(found, titles=("runs/[old]/unified", "runs/new")))
    assert "A: runs/[old]/unified. B: runs/new." in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["bags"][1:7] == ["50.0", "46.0", f"{MINUS}4.0", f"{MINUS}6.0", "to", f"{MINUS}2.0"]
    assert lines["bags"][7:9] == ["0.400", "worse"]
    assert "±0.0" in lines["shoes"]
    assert "better" in lines["merged"]
    assert all(len(line) <= 110 for line in text.splitlines())


def test_a_combination_says_what_was_tried_and_the_groups():
    found = made_up.combination(names=("bags", "[shoes]", "hats"))
    text = table_text(combination_table(found))
    for words in ("bags and 1 more", f"[shoes] {MINUS}9.0", "accepted", "refused", "1: bags, [shoes]", "2: hats"):
        assert words in text
    assert "accepted" not in table_text(combination_table(replace(found, trials=())))
    blind = replace(found.trials[0], differences={})
    assert "accepted" in table_text(combination_table(replace(found, trials=(blind,))))


def test_a_choice_says_why():
    found = made_up.choice(titles=("Plain [x]", "Ensemble"), against_specialists=made_up.comparison(a=(-0.1, "worse")))
    text = table_text(choice_table(found))
    assert "Ensemble against Plain [x]: taken; better and nowhere worse" in text
    assert "Chosen: Ensemble: better and nowhere worse" in text
    assert "41.0" in text
    assert "points against the specialist of a" in text
    assert "Chosen: Ensemble" in table_text(choice_table(replace(found, steps=(), figures={})))


def test_a_reproduction_beside_what_is_published():
    text = table_text(reproduction_table("cub200", {"R@1": 49.213, "NMI": 59.5}, {"R@1": 49.2}))
    assert ("49.21" in text, "49.20" in text, "59.50" in text) == (True, True, True)

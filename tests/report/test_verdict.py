import pytest

from tests.report import decisions
from tests.report.comparison import full_comparison, results, row
from univert.report.differences import read_comparisons
from univert.report.tables import read_rows
from univert.report.verdict import verdict

MINUS = "\N{MINUS SIGN}"


def said(*rows, best_key="unified", comparisons=()):
    content = results(list(rows), comparisons=list(comparisons))
    read = read_rows(content)
    best = next((one for one in read if one.key == best_key), None)
    return verdict(read, best, read_comparisons(content, read))


def test_a_clear_gain_is_said_with_its_size():
    found = said(row("base", 0.3, {"a": 0.3, "b": 0.4}), row("unified", 0.5, {"a": 0.5, "b": 0.6}))
    assert found.headline == "One model for 2 verticals: the right product comes first for 50.0% of queries"
    assert found.findings[0].tone == "good"
    assert found.findings[0].text == (
        "+20.0 points against the untrained base network (30.0%); the 95% intervals lie apart."
    )
    assert found.findings[-1].text == "Easiest vertical: b (60.0%); hardest: a (50.0%)."


@pytest.mark.parametrize(("base", "tone"), [(0.49, "even"), (0.51, "even"), (0.7, "bad")])
def test_nothing_is_flattered(base, tone):
    (finding,) = said(row("base", base, {"a": 0.3}), row("unified", 0.5, {"a": 0.5})).findings
    assert finding.tone == tone


def test_joint_models_are_named_each():
    found = said(
        row("joint_triplet", 0.4, {}, title="Joint triplet"),
        row("joint_proxy_nca", 0.505, {}, title="Joint Proxy-NCA"),
        row("unified", 0.5, {"a": 0.5}),
    )
    assert found.findings[0].tone == "bad"
    assert "+10.0 against Joint triplet (40.0%) and \N{MINUS SIGN}0.5 against Joint Proxy-NCA" in found.findings[0].text
    assert "Overlapping intervals" in found.findings[0].text


@pytest.mark.parametrize(
    ("own", "tone", "text"),
    [
        ({"a": 0.5, "b": 0.495}, "good", "in 2 of 2 (no more than 1 point below)."),
        (
            {"a": 0.5, "b": 0.47},
            "even",
            "1 of 2 (no more than 1 point below); furthest behind in b (\N{MINUS SIGN}3.0, intervals overlap).",
        ),
        ({"a": 0.5, "b": 0.40}, "bad", "furthest behind in b (\N{MINUS SIGN}10.0, intervals apart)."),
    ],
)
def test_specialists_are_compared_vertical_by_vertical(own, tone, text):
    found = said(row("specialists", 0.5, {"a": 0.5, "b": 0.5}), row("unified", 0.5, own))
    assert found.findings[0].tone == tone
    assert found.findings[0].text.endswith(text)


def test_one_vertical_reads_naturally():
    found = said(row("specialists", 0.4, {"shoes": 0.4}), row("unified", 0.5, {"shoes": 0.5}))
    assert found.headline == "In shoes, the right product comes first for 50.0% of queries"
    assert [finding.text for finding in found.findings] == ["+10.0 points against the specialist of shoes."]


def test_without_queries_or_rows_it_says_so():
    assert said(row("unified", None, {"a": None})).headline == "TrainedModel, but there are no queries"
    assert said().headline == "Nothing was evaluated"
    found = said(row("unified", 0.5, {"a": 0.5, "b": None}))
    assert found.findings[-1].text.startswith("No queries in b:")


def test_the_whole_comparison():
    assert len(said(*full_comparison()).findings) == 4


@pytest.mark.parametrize(
    ("pair", "tone", "text"),
    [
        ((0.155, "better"), "good", "+15.5 (+13.5 to +17.5) points against the untrained base network (40.0%)."),
        ((0.015, "same"), "even", f"+1.5 ({MINUS}0.5 to +3.5) points against the untrained base network (40.0%)."),
        ((-0.05, "worse"), "bad", f"{MINUS}5.0 ({MINUS}7.0 to {MINUS}3.0) points against"),
    ],
)
def test_a_paired_comparison_decides_before_the_intervals(pair, tone, text):
    pairs = [decisions.paired("base", decisions.comparison(pair, a=pair))]
    found = said(row("base", 0.4, {"a": 0.4}), row("unified", 0.5, {"a": 0.5}), comparisons=pairs)
    assert found.findings[0].tone == tone
    assert found.findings[0].text.startswith(text)


@pytest.mark.parametrize(
    ("nca", "tone", "hint"),
    [
        ((0.02, "better"), "good", "(45.0%)."),
        ((0.02, "same"), "even", "Level with Joint Proxy-NCA."),
        ((-0.03, "worse"), "bad", "(45.0%)."),
    ],
)
def test_joint_models_compared_in_pairs(nca, tone, hint):
    rows = [
        row("joint_triplet", 0.4, {}, title="Joint triplet"),
        row("joint_proxy_nca", 0.45, {}, title="Joint Proxy-NCA"),
        row("unified", 0.5, {"a": 0.5}),
    ]
    pairs = [
        decisions.paired("joint_triplet", decisions.comparison((0.1, "better"), a=(0.1, "better"))),
        decisions.paired("joint_proxy_nca", decisions.comparison(nca, a=nca)),
    ]
    finding = said(*rows, comparisons=pairs).findings[0]
    assert finding.tone == tone
    assert finding.text.endswith(hint)
    assert "+10.0 (+8.0 to +12.0) against Joint triplet (40.0%)" in finding.text
    # One of two in a pair: the intervals speak for both.
    assert "+10.0 against Joint triplet" in said(*rows, comparisons=pairs[1:]).findings[0].text


@pytest.mark.parametrize(
    ("b", "c", "tone", "text"),
    [
        ((0.01, "same"), (0.04, "better"), "good", "in 2 of 3, level in 1 and worse in none; +3.3"),
        ((-0.2, "same"), (0.01, "same"), "even", f"in 1 of 3, level in 2 and worse in none; {MINUS}4.7"),
        ((-0.04, "worse"), (0.2, "better"), "bad", f"in 2 of 3 and worse in b ({MINUS}4.0); +7.0 points on average."),
    ],
)  # fmt: skip
def test_specialists_compared_in_pairs(b, c, tone, text):
    # The merged gallery, where specialists are told the vertical, is no part of it.
    found = decisions.comparison((-0.1, "worse"), a=(0.05, "better"), b=b, c=c)
    verticals = dict.fromkeys("abc", 0.5)
    pairs = [decisions.paired("specialists", found)]
    finding = said(row("specialists", 0.6, verticals), row("unified", 0.5, verticals), comparisons=pairs).findings[0]
    assert finding.tone == tone
    assert text in finding.text


def test_one_specialist_compared_in_a_pair():
    pairs = [decisions.paired("specialists", decisions.comparison((0.0, "same"), shoes=(-0.04, "worse")))]
    rows = (row("specialists", 0.5, {"shoes": 0.5}), row("unified", 0.5, {"shoes": 0.46}))
    (finding,) = said(*rows, comparisons=pairs).findings
    assert finding.tone == "bad"
    assert finding.text == f"{MINUS}4.0 ({MINUS}6.0 to {MINUS}2.0) points against the specialist of shoes."


def test_pairs_that_judge_another_model_do_not_count():
    pairs = [decisions.paired("base", decisions.comparison((0.3, "better"), a=(0.3, "better")), second="joint_triplet")]
    found = said(row("base", 0.49, {"a": 0.3}), row("unified", 0.5, {"a": 0.5}), comparisons=pairs)
    assert "overlap" in found.findings[0].text

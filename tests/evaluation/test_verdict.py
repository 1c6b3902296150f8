import pytest

from tests.evaluation.comparison import full_comparison, results, row
from univert.evaluation.tables import read_rows
from univert.evaluation.verdict import verdict


def said(*rows, best_key="unified"):
    read = read_rows(results(list(rows)))
    return verdict(read, next((one for one in read if one.key == best_key), None))


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
    assert (
        "+10.0 against Joint triplet (40.0%) and \N{MINUS SIGN}0.5 against Joint Proxy-NCA"
        in found.findings[0].text
    )
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
    assert said(row("unified", None, {"a": None})).headline == "Trained, but there are no queries"
    assert said().headline == "Nothing was evaluated"
    found = said(row("unified", 0.5, {"a": 0.5, "b": None}))
    assert found.findings[-1].text.startswith("No queries in b:")


def test_the_whole_comparison():
    assert len(said(*full_comparison()).findings) == 4

import pytest

from tests.report.made_up import against, all_models, combination, comparison, model
from univert.report.verdict import findings, headline, refused_by

MINUS = "\N{MINUS SIGN}"
HALF = dict.fromkeys("abc", 0.5)


def test_the_headline_and_the_verticals():
    several = model("unified", 0.5, {"a": 0.5, "b": 0.6, "c": None})
    assert headline(several) == "One model for 3 verticals: the right product comes first for 50.0% of queries"
    assert headline(model("unified", 0.5, {"shoes": 0.5})).startswith("In shoes, the right product comes first for")
    assert [one.text for one in findings([several], [])] == [
        "Easiest vertical: b (60.0%); hardest: a (50.0%).",
        "No queries in c: no product there has two labelled images in this split.",
    ]


@pytest.mark.parametrize(
    ("pair", "tone", "text"),
    [
        ((0.155, "better"), "good", "+15.5 (+13.5 to +17.5) points against the untrained base network (40.0%)."),
        ((0.015, "unclear"), "even", f"+1.5 ({MINUS}0.5 to +3.5) points against the untrained base network (40.0%)."),
        ((-0.05, "worse"), "bad", f"{MINUS}5.0 ({MINUS}7.0 to {MINUS}3.0) points against the untrained"),
    ],
)
def test_nothing_is_flattered(pair, tone, text):
    models = [model("base", 0.4, {"a": 0.4}, title="Untrained base network"), model("unified", 0.5, {"a": 0.5})]
    (found,) = findings(models, [against("base", comparison(pair, a=pair))])
    assert found.tone == tone
    assert found.text.startswith(text)


@pytest.mark.parametrize(
    ("b", "c", "tone", "text"),
    [
        ((0.01, "same"), (0.04, "better"), "good", "in 2 of 3, the same in 1 and worse in none; +3.3"),
        ((-0.2, "unclear"), (0.01, "same"), "even", f"not told apart from it in 1 and worse in none; {MINUS}4.7"),
        ((-0.04, "worse"), (0.2, "better"), "bad", f"in 2 of 3 and worse in b ({MINUS}4.0); +7.0 points on average."),
    ],
)  # fmt: skip
def test_specialists_are_compared_vertical_by_vertical(b, c, tone, text):
    # The merged gallery, where specialists are told the vertical, is no part of it.
    pairs = [against("specialists", comparison((-0.1, "worse"), a=(0.05, "better"), b=b, c=c))]
    found = findings([model("specialists", 0.6, HALF), model("unified", 0.5, HALF)], pairs)[0]
    assert found.tone == tone
    assert text in found.text


def test_a_mean_that_no_vertical_bears_out_is_not_praised():
    found = comparison(a=(0.05, "unclear"), b=(0.04, "unclear"), c=(0.0, "same"))
    models = [model("specialists", 0.6, HALF), model("unified", 0.5, HALF)]
    assert findings(models, [against("specialists", found)])[0].tone == "even"


def test_specialists_below_the_untrained_network_are_named():
    models = [model("base", 0.4, HALF), model("specialists", 0.6, HALF), model("unified", 0.5, HALF)]
    found = comparison(a=(-0.08, "unclear"), b=(-0.005, "same"), c=(-0.09, "worse"))
    (one, _) = findings(models, [against("base", found, second="specialists")])
    text = (
        f"Below the untrained base network are 2 of 3 specialists: c ({MINUS}9.0) and a ({MINUS}8.0). Beyond chance: c."
    )
    assert (one.tone, one.text) == ("bad", text)
    (one, _) = findings(models, [against("base", comparison(a=(0.1, "better")), second="specialists")])
    assert (one.tone, one.text) == ("note", "No specialist is below the untrained base network.")


def test_the_whole_comparison():
    pairs = [against(key, comparison(bags=(0.1, "better"))) for key in ("specialists", "joint_triplet", "base")]
    assert [one.tone for one in findings(all_models(), pairs)] == ["even", "even", "good", "note"]


def test_a_group_knows_whom_it_refused():
    found = combination()
    assert [[trial.added for trial in refused_by(group, found.trials)] for group in found.groups] == [["hats"], []]

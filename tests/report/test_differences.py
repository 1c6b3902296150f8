import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report import decisions
from tests.report.comparison import results, row
from univert.core.errors import BadInputError
from univert.report.choice import read_choice, read_ensemble
from univert.report.differences import chart_of, read_comparisons, scale_around_zero
from univert.report.groups import read_combination
from univert.report.tables import read_rows

shares = st.floats(-1, 1)


@given(st.lists(st.tuples(shares, st.floats(0, 0.5)), max_size=8), st.floats(0, 0.2))
def test_the_scale_holds_zero_the_tolerance_and_every_interval(changes, tolerance):
    found = [decisions.difference(change, spread=spread) for change, spread in changes]
    scale = scale_around_zero(found, tolerance=tolerance)
    places = [place for place, _ in scale.ticks]
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (0.0, 100.0)
    assert 2 <= len(places) <= 17
    assert "0" in {label for _, label in scale.ticks}
    for one in found:
        assert scale.low - 1e-9 <= one.low <= one.high <= scale.high + 1e-9
    assert scale.low <= -tolerance + 1e-9
    assert scale.high >= tolerance - 1e-9


def test_ticks_are_signed_points():
    assert [label for _, label in scale_around_zero([], tolerance=0.01).ticks] == [
        "\N{MINUS SIGN}1", "\N{MINUS SIGN}0.5", "0", "+0.5", "+1",
    ]  # fmt: skip


def test_a_chart_begins_with_the_merged_gallery_and_goes_on_by_gain():
    found = chart_of(decisions.comparison((0.01, "same"), a=(-0.04, "worse"), b=(0.06, "better"), c=(0.0, "same")))
    assert [line.name for line in found.lines] == ["Merged gallery", "b", "c", "a"]
    assert [line.emphasised for line in found.lines] == [True, False, False, False]
    by_name = {line.name: line for line in found.lines}
    assert by_name["b"].mark.change == "+6.0"
    assert by_name["b"].mark.interval == "+4.0 to +8.0"
    assert by_name["a"].mark.at < found.band[0] < found.zero < found.band[1] < by_name["b"].mark.at
    assert by_name["c"].mark.at == found.zero


def test_comparisons_bear_the_rows_titles():
    content = results(
        [row("specialists", 0.5, {}, title="Own"), row("unified", 0.5, {})],
        comparisons=[decisions.paired(first, decisions.comparison()) for first in ("specialists", "x")],
    )
    own, other = read_comparisons(content, read_rows(content))
    assert (own.names, own.routed) == (("Own", "Unified"), True)
    assert (other.names, other.routed) == (("x", "Unified"), False)


def test_a_combination_is_ordered_by_its_groups():
    found = read_combination({"combination": decisions.combination()})
    assert found.columns == ("bags", "shoes", "hats")
    assert [cell.value for cell in found.individual] == [0.5, 0.5, 0.5]
    assert [(group.verticals, group.refused) for group in found.groups] == [
        (("bags", "shoes"), (("hats", "as it is"),)),
        (("hats",), ()),
    ]
    first, second = found.trials
    assert [cell.value for cell in first.cells] == [0.52, 0.495, None]
    assert [(cell.worse, cell.precision) for cell in second.cells] == [
        (False, "\N{MINUS SIGN}7.0"),
        (True, "\N{MINUS SIGN}9.0"),
        (False, None),
    ]
    assert found.budget == 36


def test_a_combination_that_was_off_has_groups_alone():
    content = {
        "mode": "off", "order": "difficulty", "groups": [["a"], ["b"]], "trials": [], "path": ["off"],
        "individual": {"a": {"recall_at_1": None, "map_at_r": None, "queries": 0}, "b": None},
    }  # fmt: skip
    found = read_combination({"combination": content})
    assert [group.verticals for group in found.groups] == [("a",), ("b",)]
    assert [cell.value for cell in found.individual] == [None, None]
    assert found.how == "the easiest first"


def test_choice_and_members_are_read():
    found = read_choice({"choice": decisions.choice()})
    assert (found.title, found.reason) == ("Ensemble", "better and nowhere worse")
    assert [one.chosen for one in found.candidates] == [False, True]
    assert [(step.champion, step.challenger, step.taken) for step in found.steps] == [("Plain", "Ensemble", True)]
    members = read_ensemble({"ensemble": decisions.ensemble()})
    assert members.metric == "MAP@R"
    assert [one.line.mark is None for one in members.members] == [True, False, True]
    assert members.members[2].image_presentations is None
    assert members.distortion == (("energy kept", "0.973"), ("order kept", "0.99"))


@pytest.mark.parametrize("read", [read_choice, read_ensemble, read_combination])
def test_what_is_absent_is_left_out(read):
    assert read({}) is None
    assert read({"choice": None, "ensemble": None, "combination": None}) is None


@pytest.mark.parametrize(
    ("read", "key", "value"),
    [
        (read_choice, "choice", {"split": "val"}),
        (read_ensemble, "ensemble", {"members": [{"title": "x"}]}),
        (read_combination, "combination", ["a"]),
        (lambda content: read_comparisons(content, []), "comparisons", [{"title": "x"}]),
    ],
)
def test_what_no_run_writes_is_refused_by_name(read, key, value):
    with pytest.raises(BadInputError, match=rf"results\['{key}'\] is not what a run writes"):
        read({key: value})

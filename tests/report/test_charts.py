import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.metrics.figures import Interval
from univert.report.charts import dot, scale_for, scale_for_intervals, training_panels


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_scale_holds_its_values_between_round_ends(values):
    scale = scale_for(values)
    assert scale.low <= min(values) + 1e-9
    assert scale.high >= max(values) - 1e-9
    assert 2 <= len(scale.ticks) <= 8
    assert [place for place, _ in scale.ticks] == sorted({place for place, _ in scale.ticks})
    assert (scale.ticks[0][0], scale.ticks[-1][0]) == (0, 100)
    assert all(0 <= scale.place(value) <= 100 for value in values)


def test_a_scale_without_values_is_the_whole_range():
    assert (scale_for([]).low, scale_for([]).high) == (0.0, 1.0)
    assert scale_for_intervals([None, Interval(0.5, 0.42, 0.57)]).ticks[0] == (0, "40")


def test_a_dot_carries_its_interval_in_words_and_places():
    scale = scale_for([0.0, 1.0])
    found = dot(Interval(0.5, 0.4, 0.6), scale, kind="best", label="Unified")
    assert (found.at, found.low, found.high) == (50.0, 40.0, 60.0)
    assert found.text == "50.0%, 95% interval 40.0 to 60.0"
    assert dot(Interval(0.5), scale, kind="best", label="Unified").low is None


def curve(**values):
    (panel,) = training_panels({"stage": values})
    return panel


def test_panels_say_what_they_show():
    panel = curve(step=[1, 2], loss=[0.8, 0.2], val_map_at_r=[[1, 0.4], [2, 0.5], [3, 0.45]], best_step=3)
    assert panel.steps == 3
    assert panel.summary == ("val MAP@R 45.0% at step 3", "loss 0.8 to 0.2")
    assert panel.score.mark[0] == 100
    assert panel.loss.path == "M33.33 0L66.67 100"
    assert curve(val_recall_at_1=[[1, 0.4], [2, 0.5], [3, 0.5]]).summary == ("val R@1 50.0% at step 2",)


def test_long_curves_are_thinned_and_lost_values_left_out():
    steps = list(range(10_000))
    losses = [math.nan if step % 7 == 0 else math.inf if step % 11 == 0 else 1.0 / (step + 1) for step in steps]
    panel = curve(step=steps, loss=losses, val_recall_at_1=[[1, None], [2, math.nan]])
    assert panel.loss.path.count("L") < 200
    assert "nan" not in panel.loss.path
    assert panel.score is None


@pytest.mark.parametrize("values", [{}, {"step": [], "loss": []}, {"step": [1], "loss": [None]}])
def test_stages_without_values_have_no_panel(values):
    assert training_panels({"stage": values}) == []


def test_one_point_is_still_drawn():
    assert "L" in curve(step=[0], loss=[0.5]).loss.path

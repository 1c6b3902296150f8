import math
import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.made_up import all_models, comparison, figures
from univert.report.charts import differences_chart, models_chart, training_panels
from univert.report.tables import gallery_lines

SVG = "{http://www.w3.org/2000/svg}"


def texts(chart):
    return [element.text for element in ElementTree.fromstring(str(chart)).iter(f"{SVG}text")]


def test_the_models_on_one_scale():
    chart = models_chart(all_models())
    assert {"Base", "Specialists", "Unified", "30.0", "60.0"} <= set(texts(chart))
    assert models_chart(all_models()) == chart
    # The page's colours and font, and nothing that could load or clash.
    assert not re.search(r"#00000[1-8]|url\(|<style|<metadata", chart)
    assert {"var(--ink)", "var(--accent)", "var(--amber)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", chart))


shares = st.floats(-1, 1)


@settings(max_examples=10, deadline=None)
@given(st.lists(shares, min_size=1, max_size=4), st.floats(0, 0.2))
def test_differences_lie_around_zero_whatever_they_are(changes, tolerance):
    chart = differences_chart([(f"gallery {n}", figures(one)) for n, one in enumerate(changes)], tolerance, label="x")
    assert {"0", *(f"gallery {number}" for number in range(len(changes)))} <= set(texts(chart))


def test_a_name_is_text_whatever_it_holds():
    name = "<b>$x$ & 'y'\N{CJK UNIFIED IDEOGRAPH-6F22}"
    lines = gallery_lines(comparison(**{name: (0.1, "better")}), routed=False)
    chart = differences_chart(lines, 0.01, label=name)
    assert name in texts(chart)
    assert ElementTree.fromstring(str(chart)).get("aria-label") == name


def panels(**curve):
    return training_panels({"stage": {"step": [], "loss": [], "val_map_at_r": [], "best_step": None, **curve}})


def test_panels_say_what_they_show():
    (panel,) = panels(step=[1, 2], loss=[0.8, 0.2], val_map_at_r=[[1, 0.4], [2, 0.5], [3, 0.45]], best_step=3)
    assert panel.summary == "val MAP@R 45.0% at step 3; loss 0.8 to 0.2"
    assert {"val MAP@R, %", "loss", "0.8", "0.2", "3"} <= set(texts(panel.chart))
    (panel,) = panels(val_map_at_r=[[1, 0.4], [2, 0.5]], watched={"bound": [[1, 3.0], [2, 1.0]], "empty": []})
    assert panel.summary == "val MAP@R 50.0% at step 2; bound 3 to 1"


def test_long_curves_are_thinned_and_lost_values_left_out():
    losses = [math.nan if step % 7 == 0 else math.inf if step % 11 == 0 else 1.0 / (step + 1) for step in range(10_000)]
    (panel,) = panels(step=list(range(10_000)), loss=losses, val_map_at_r=[[1, None], [2, math.nan]])
    assert "val" not in panel.summary
    assert "nan" not in panel.chart
    assert len(panel.chart) < 15_000


def test_stages_without_values_have_no_panel_and_one_point_is_still_drawn():
    assert panels(step=[1], loss=[None]) == []
    assert panels(step=[0], loss=[0.5])

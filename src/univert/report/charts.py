"""The report's line and dot charts, drawn by matplotlib as SVG that takes its colours and font from the page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from univert.metrics.compare import Figures, Verdict
from univert.report.number_format import percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from univert.training.evaluation import ComparedModel

# Placeholders, which `_svg` replaces by the page's own colours: one chart serves the light and the dark page.
_INK, _MUTED, _RULE, _ACCENT, _AMBER, _GOOD, _BAD, _CARD = (f"#00000{number}" for number in range(1, 9))
_VARIABLES = ("ink", "muted", "rule", "accent", "amber", "good", "bad", "card")
_MARKS = {  # shape, edge, face: nothing hangs on colour alone
    "best": ("o", _ACCENT, _ACCENT),
    "specialists": ("D", _AMBER, _AMBER),
    "base": ("o", _MUTED, _CARD),
}
_OTHER = ("s", _MUTED, _MUTED)
_VERDICTS: dict[Verdict, tuple[str, str, str]] = {
    "better": ("^", _GOOD, _GOOD),
    "same": ("o", _MUTED, _MUTED),
    "unclear": ("o", _MUTED, _CARD),
    "worse": ("v", _BAD, _BAD),
}
_WIDTH_PT = 380
_LINE_PT, _AXIS_PT = 20, 24
_FONT_PT = 10.0
_CURVE_POINTS = 160
"""Points of a drawn curve: more than a panel has pixels would only weigh."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A training stage: its chart, and the same in words."""

    title: str
    chart: Markup
    summary: str


def models_chart(models: Sequence[ComparedModel]) -> Markup:
    """Merged Recall@1 of every model on one scale; the last is the one that the report is about."""
    found = [one.evaluation.merged.recall_at[1] for one in models]
    figure, axes = _rows([(one.row.title, percent(value.value)) for one, value in zip(models, found, strict=True)])
    for row, (one, value) in enumerate(zip(models, found, strict=True)):
        kind = "best" if one is models[-1] else "specialists" if one.row.routed else one.row.key
        _mark(axes, row, _MARKS.get(kind, _OTHER), value.value, value.low, value.high)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    ends = [end for value in found for end in (value.low, value.value, value.high) if end is not None]
    _across(axes, ends, signed=False)
    return _svg(figure, "Recall at 1 in the merged gallery, by model")


def differences_chart(lines: Sequence[tuple[str, Figures]], tolerance: float, *, label: str) -> Markup:
    """Differences of Recall@1 around zero, a line each: a mark, its interval, and shaded what counts as the same."""
    found = [figures["recall_at_1"] for _, figures in lines]
    figure, axes = _rows([(name, f"{points(one.difference)}") for (name, _), one in zip(lines, found, strict=True)])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.axvspan(-100 * tolerance, 100 * tolerance, color=_MUTED, alpha=0.14, linewidth=0)
    axes.axvline(0, color=_MUTED, linewidth=1)
    for row, one in enumerate(found):
        _mark(axes, row, _VERDICTS[one.verdict], one.difference, one.low, one.high)
    _across(axes, [end for one in found for end in (one.low, one.high)] + [-tolerance, tolerance], signed=True)
    return _svg(figure, label)


def training_panels(curves: Mapping[str, Mapping[str, Any]]) -> list[Panel]:
    """Training curves as small multiples: validation scores share one scale, each loss has its own.

    Args:
        curves: by stage `step` and `loss` (lists), `val_map_at_r` (pairs of step and score), `best_step`, and
            `watched` (pairs of step and value by name). Scores may be missing, values None or not finite.
    """
    scores = {stage: _finite(curve["val_map_at_r"]) for stage, curve in curves.items()}
    values = [value for pairs in scores.values() for _, value in pairs]
    bounds = (100 * min(values), 100 * max(values)) if values else (0.0, 100.0)
    panels = []
    for stage, curve in curves.items():
        losses = _thinned(_finite(zip(curve["step"], curve["loss"], strict=True)))
        if not losses and not scores[stage]:
            continue
        watched = {name: _finite(pairs) for name, pairs in curve.get("watched", {}).items()}
        others = {"loss": losses, **watched}
        panels.append(_panel(stage, scores[stage], curve["best_step"], bounds, {k: v for k, v in others.items() if v}))
    return panels


def _panel(
    title: str,
    scores: list[tuple[float, float]],
    best_step: float | None,
    bounds: tuple[float, float],
    others: Mapping[str, list[tuple[float, float]]],
) -> Panel:
    parts = [*(["val MAP@R, %"] if scores else []), *others]
    heights = [1.5 if part == "val MAP@R, %" else 1.0 for part in parts]
    height = 26 + 46 * sum(heights)
    figure = _figure(190, height)
    grid = figure.add_gridspec(
        len(parts), 1, height_ratios=heights, left=0.19, right=0.97, top=1 - 12 / height, bottom=14 / height, hspace=0.4
    )
    last = max(step for pairs in (scores, *others.values()) for step, _ in pairs)
    summary = []
    for place, name in enumerate(parts):
        axes = figure.add_subplot(grid[place])
        pairs = [(step, 100 * value) for step, value in scores] if name not in others else others[name]
        steps, values = zip(*pairs, strict=True)
        marker = "" if len(pairs) > 1 else "."
        axes.plot(steps, values, color=_MUTED if name in others else _ACCENT, linewidth=1.3, marker=marker)
        if name in others:
            summary.append(f"{name} {values[0]:.3g} to {values[-1]:.3g}")
        else:
            kept = steps.index(best_step) if best_step in steps else int(np.argmax(values))
            axes.plot(steps[kept], values[kept], "o", color=_ACCENT, markersize=4)
            axes.set_ylim(bounds[0] - 2, bounds[1] + 2)
            summary.append(f"val MAP@R {values[kept]:.1f}% at step {steps[kept]:,.0f}")
        axes.set_xlim(0, max(last, 1))
        axes.set_title(name, loc="left", fontsize=7.5, color=_MUTED, pad=3)
        axes.set_xticks([0, last] if place == len(parts) - 1 else [])
        axes.set_yticks(sorted({min(values), max(values)}) if name in others else bounds)
        for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
            label.set_horizontalalignment(side)  # type: ignore[arg-type]
        axes.yaxis.set_major_formatter("{x:.3g}" if name in others else "{x:.0f}")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(labelsize=7.5, length=0, pad=2, labelcolor=_MUTED)
        for spine in axes.spines.values():
            spine.set_color(_RULE)
    return Panel(title=title, chart=_svg(figure, f"Training curves of {title}"), summary="; ".join(summary))


def _rows(lines: Sequence[tuple[str, str]]) -> tuple[Figure, Axes]:
    """An empty chart with a named line for each entry, and a text at its right end."""
    height = _LINE_PT * len(lines) + _AXIS_PT
    figure = _figure(_WIDTH_PT, height)
    names = [f"{name[:29]}…" if len(name) > 30 else name for name, _ in lines]
    left = 14 + 5.6 * max(map(len, names), default=0)
    axes = figure.add_axes((left / _WIDTH_PT, _AXIS_PT / height, 1 - (left + 46) / _WIDTH_PT, 1 - _AXIS_PT / height))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), names)
    for row, (_, text) in enumerate(lines):
        axes.annotate(
            text, (1, row), (8, 0), ("axes fraction", "data"), "offset points", va="center", color=_INK, size=_FONT_PT
        )
    axes.tick_params(length=0, pad=7, labelcolor=_INK, labelsize=_FONT_PT)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def _mark(
    axes: Axes, row: float, look: tuple[str, str, str], value: float, low: float | None, high: float | None
) -> None:
    shape, edge, face = look
    if low is not None and high is not None:
        axes.plot([100 * low, 100 * high], [row, row], color=edge, linewidth=1.1, alpha=0.75, solid_capstyle="round")
    axes.plot(100 * value, row, shape, markeredgecolor=edge, markerfacecolor=face, markersize=4.8, zorder=3)


def _across(axes: Axes, shares: Sequence[float], *, signed: bool) -> None:
    """Round limits and gridlines that hold some shares of 1, as percentages or signed points."""
    from matplotlib.ticker import MaxNLocator

    low, high = (100 * min(shares), 100 * max(shares)) if shares else (0.0, 100.0)
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    axes.set_xlim(ticks[0], ticks[-1])
    labels = [points(tick / 100).removesuffix(".0").replace("±0", "0") if signed else f"{tick:g}" for tick in ticks]
    axes.set_xticks(ticks, [*labels[:-1], labels[-1] + ("" if signed else "%")])
    axes.tick_params(axis="x", labelcolor=_MUTED)
    axes.grid(axis="x", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def _figure(width_pt: float, height_pt: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_pt / 72, height_pt / 72))
    figure.patch.set_visible(False)
    return figure


def _svg(figure: Figure, label: str) -> Markup:
    """The chart as an element of the page. The same chart is the same text; its identifiers are its own."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.patch.set_visible(False)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's browser has the font
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub("<metadata>.*?</metadata>|<style.*?</style>|<clipPath.*?</clipPath>", "", svg, flags=re.DOTALL)
    svg = re.sub(' clip-path="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub("#00000([1-8])", lambda found: f"var(--{_VARIABLES[int(found[1]) - 1]})", svg)
    name = str(Markup.escape(label))
    opening = f'<svg class="chart" role="img" aria-label="{name}"'
    return Markup(svg.replace("<svg", opening, 1))  # noqa: S704 - matplotlib escapes the names in it


def _finite(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[float, float]]:
    known = [(float(step), float(value)) for step, value in pairs if step is not None and value is not None]
    return [(step, value) for step, value in known if math.isfinite(value)]


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_CURVE_POINTS` points, each the mean of as many neighbours."""
    if len(pairs) <= _CURVE_POINTS:
        return pairs
    parts = np.array_split(np.asarray(pairs), _CURVE_POINTS)
    return [(float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts)]

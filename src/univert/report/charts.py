"""Geometry of the report's charts: dot plots with intervals, and training curves as small multiples.

Only numbers: the templates draw them as SVG. Horizontal places are percentages of the width, so that a chart
fits a phone and a desktop without scaling its text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from univert.metrics.figures import Interval
from univert.report.number_format import percent

_CURVE_POINTS = 160
"""Points of a drawn curve: more than a panel has pixels would only weigh."""

_SCORES = {"val_recall_at_1": "val R@1", "val_map_at_r": "val MAP@R"}
"""Keys under which a stage's score on the val split may come, and their names for people."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis of shares of 1, between round limits.

    Attributes:
        low: value at the left end.
        high: value at the right end.
        ticks: (place in percent of the width, label).
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Where a value lies, in percent of the width."""
        return round(100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval on a dot plot; places in percent of the width.

    Attributes:
        kind: names the mark: `base`, `specialists`, `best` or `other`.
        label: the model's name.
        text: the value in words.
        at: its place.
        low: left end of its interval; None if it has none.
        high: right end of its interval.
    """

    kind: str
    label: str
    text: str
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a training panel.

    Attributes:
        path: SVG path in a box 100 wide and 100 high, y downwards.
        top: the value at the upper edge, as text.
        bottom: the value at the lower edge, as text.
        mark: (x, y) of the value worth pointing at, in the same box; None for none.
    """

    path: str
    top: str
    bottom: str
    mark: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A training stage: its score on the val split above, its loss below.

    Attributes:
        title: the stage.
        steps: number of steps.
        score_name: which score.
        score: the val score; None if none was taken.
        loss: the training loss; None if none was finite.
        watched: further figures that were watched, (name, curve) each.
        summary: all of it in words.
    """

    title: str
    steps: int
    score_name: str
    score: Curve | None
    loss: Curve | None
    watched: tuple[tuple[str, Curve], ...]
    summary: tuple[str, ...]


def scale_for(values: Sequence[float]) -> Scale:
    """A scale with round limits that holds all values, shares of 1."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if (high - low) / step <= 5), 0.2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    first, last = max(first, 0) if low >= 0 else first, last
    low, high = first * step, last * step
    ticks = tuple(
        (round(100 * (index - first) / (last - first), 2), percent(index * step, digits=0))
        for index in range(first, last + 1)
    )
    return Scale(low=low, high=high, ticks=ticks)


def scale_for_intervals(intervals: Sequence[Interval | None]) -> Scale:
    """A scale that holds all values and their intervals."""
    found = [interval for interval in intervals if interval is not None]
    ends = [end for one in found for end in (one.low, one.value, one.high) if end is not None]
    return scale_for(ends)


def dot(interval: Interval, scale: Scale, *, kind: str, label: str) -> Dot:
    """Place a value and its interval on a scale."""
    known = interval.low is not None and interval.high is not None
    text = f"{percent(interval.value)}%"
    if interval.low is not None and interval.high is not None:
        text += f", 95% interval {percent(interval.low)} to {percent(interval.high)}"
    return Dot(
        kind=kind,
        label=label,
        text=text,
        at=scale.place(interval.value),
        low=scale.place(interval.low) if known and interval.low is not None else None,
        high=scale.place(interval.high) if known and interval.high is not None else None,
    )


def training_panels(curves: Mapping[str, Any]) -> list[Panel]:
    """Training curves as small multiples: val scores share one scale, each loss has its own.

    Args:
        curves: stage -> `{"step": [...], "loss": [...], "val_recall_at_1" or "val_map_at_r": [[step, value], ...],
            "best_step": ..., "watched": {name: [[step, value], ...]}}`; keys may be missing and values None or not
            finite.
    """
    scores = {stage: _score_of(curve) for stage, curve in curves.items()}
    shared = scale_for([value for _, pairs in scores.values() for _, value in pairs])
    panels = []
    for stage, curve in curves.items():
        losses = _thinned(_pairs(list(zip(curve.get("step") or [], curve.get("loss") or [], strict=False))))
        score_name, pairs = scores[stage]
        if not pairs and not losses:
            continue
        last = max(step for step, _ in (*losses, *pairs))
        summary = []
        score = None
        if pairs:
            kept = _kept(pairs, curve.get("best_step"))
            score = _score_curve(pairs, kept, last, shared)
            summary.append(f"{score_name} {percent(pairs[kept][1])}% at step {pairs[kept][0]:,.0f}")
        if losses:
            summary.append(f"loss {losses[0][1]:.2g} to {losses[-1][1]:.2g}")
        watched = []
        for name, values in (curve.get("watched") or {}).items():
            if seen := _pairs(values):
                watched.append((name, _loss_curve(seen, last)))
                summary.append(f"{name} {seen[0][1]:.2g} to {seen[-1][1]:.2g}")
        panels.append(
            Panel(
                title=stage,
                steps=int(last),
                score_name=score_name,
                score=score,
                loss=_loss_curve(losses, last) if losses else None,
                watched=tuple(watched),
                summary=tuple(summary),
            )
        )
    return panels


def _score_of(curve: Mapping[str, Any]) -> tuple[str, list[tuple[float, float]]]:
    for key, name in _SCORES.items():
        if curve.get(key):
            return name, _pairs(curve[key])
    return "", []


def _kept(pairs: list[tuple[float, float]], best_step: float | None) -> int:
    """Which of the scores belongs to the weights that were kept: the step named, else the first best."""
    steps = [step for step, _ in pairs]
    if best_step is not None and best_step in steps:
        return steps.index(best_step)
    return max(range(len(pairs)), key=lambda index: (pairs[index][1], -index))


def _score_curve(pairs: list[tuple[float, float]], kept: int, last: float, scale: Scale) -> Curve:
    places = [(_across(step, last), 100 - scale.place(value)) for step, value in pairs]
    return Curve(
        path=_path(places),
        top=f"{percent(scale.high, digits=0)}%",
        bottom=f"{percent(scale.low, digits=0)}%",
        mark=places[kept],
    )


def _loss_curve(pairs: list[tuple[float, float]], last: float) -> Curve:
    values = [value for _, value in pairs]
    low, high = min(values), max(values)
    span = high - low or 1.0
    places = [(_across(step, last), round(100 - 100 * (value - low) / span, 2)) for step, value in pairs]
    return Curve(path=_path(places), top=f"{high:.2g}", bottom=f"{low:.2g}")


def _across(step: float, last: float) -> float:
    return round(100 * step / last, 2) if last > 0 else 0.0


def _path(places: Sequence[tuple[float, float]]) -> str:
    if len(places) == 1:  # a path of one point draws nothing: make it a short dash
        (x, y) = places[0]
        return f"M{max(x - 2, 0):g} {y:g}L{x:g} {y:g}"
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)


def _pairs(values: Sequence[Any]) -> list[tuple[float, float]]:
    """Finite (step, value) pairs in order of the step."""
    known = [(step, value) for step, value in values if step is not None and value is not None]
    finite = [(float(x), float(y)) for x, y in known if math.isfinite(x) and math.isfinite(y)]
    return sorted(finite, key=lambda pair: pair[0])


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_CURVE_POINTS` points, each the mean of as many neighbours."""
    if len(pairs) <= _CURVE_POINTS:
        return pairs
    parts = np.array_split(np.asarray(pairs, dtype=np.float64), _CURVE_POINTS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]

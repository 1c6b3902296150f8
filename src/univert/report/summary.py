"""The first screen of the report: the figures that matter most, and the models on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from univert.metrics.figures import Interval
from univert.report.charts import Dot, Scale, dot, scale_for_intervals
from univert.report.number_format import RANGE, count, percent, points
from univert.report.tables import Row, recall_at_1


@dataclass(frozen=True, kw_only=True)
class Stat:
    """A large figure: what it is, its value and unit, and the small print below."""

    label: str
    value: str
    unit: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class DotLine:
    """A line of a dot plot.

    Attributes:
        name: its label.
        note: small print beside the label.
        value: the figure at the right end.
        emphasised: whether it is the line that the report is about.
        dots: its marks; empty where there were no queries.
    """

    name: str
    note: str
    value: str
    emphasised: bool
    dots: tuple[Dot, ...]


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """Lines on a common scale, and which kinds of marks they use with their names."""

    scale: Scale
    lines: tuple[DotLine, ...]
    legend: tuple[tuple[str, str], ...]


def stats(rows: Sequence[Row], best: Row | None) -> list[Stat]:
    """The figures of the first screen; those that do not exist are left out."""
    if best is None or best.merged is None:
        return []
    merged = best.merged
    first = recall_at_1(merged)
    found = []
    if first is not None:
        found.append(Stat(label="Merged gallery, R@1", value=percent(first.value), unit="%", detail=_interval(first)))
        base = next((row for row in rows if row.key == "base"), None)
        untrained = recall_at_1(base.merged) if base and base is not best else None
        if untrained is not None:
            found.append(
                Stat(
                    label="Over the untrained base",
                    value=points(first.value - untrained.value),
                    unit="points",
                    detail=f"from {percent(untrained.value)}%",
                )
            )
    mean = best.mean_within.get("recall_at_1")
    if mean is not None and len(best.verticals) > 1:
        detail = f"mean of {count(len(best.verticals), 'vertical')}"
        found.append(Stat(label="Within a vertical, R@1", value=percent(mean), unit="%", detail=detail))
    detail = f"of {count(merged.products, 'product')}"
    found.append(Stat(label="Queries", value=count(merged.queries), unit="", detail=detail))
    return found


def ladder(rows: Sequence[Row], best: Row | None) -> DotPlot | None:
    """Merged Recall@1 of every model on one scale; None when none has queries."""
    values = [recall_at_1(row.merged) for row in rows]
    if not any(value is not None for value in values):
        return None
    scale = scale_for_intervals(values)
    lines = tuple(
        DotLine(
            name=row.title,
            note="routed by true vertical" if row.routed else "",
            value=percent(value.value) if value else "",
            emphasised=row is best,
            dots=(dot(value, scale, kind=_kind(row, best), label=row.title),) if value else (),
        )
        for row, value in zip(rows, values, strict=True)
    )
    return DotPlot(scale=scale, lines=lines, legend=())


def vertical_plot(rows: Sequence[Row], best: Row | None) -> DotPlot | None:
    """Recall@1 within each vertical: the best model, its specialists, the untrained base; best vertical first."""
    shown = [row for row in rows if row is best or row.routed or row.key == "base"]
    if best is None or not any(recall_at_1(one) for row in shown for one in row.verticals.values()):
        return None
    scale = scale_for_intervals([recall_at_1(metrics) for row in shown for metrics in row.verticals.values()])
    names = sorted({name for row in shown for name in row.verticals})
    own = {name: recall_at_1(best.verticals.get(name)) for name in names}
    names.sort(key=lambda name: -(own[name] or Interval(value=-1.0, low=None, high=None)).value)
    lines = []
    for name in names:
        value, metrics = own[name], best.verticals.get(name)
        dots = [
            dot(found, scale, kind=_kind(row, best), label=row.title)
            for row in shown
            if (found := recall_at_1(row.verticals.get(name))) is not None
        ]
        lines.append(
            DotLine(
                name=name,
                note=count(metrics.queries, "query") if metrics else "no queries",
                value=percent(value.value) if value else "",
                emphasised=False,
                dots=tuple(dots),
            )
        )
    return DotPlot(scale=scale, lines=tuple(lines), legend=tuple((_kind(row, best), row.title) for row in shown))


def _kind(row: Row, best: Row | None) -> str:
    if row is best:
        return "best"
    return "specialists" if row.routed else "base" if row.key == "base" else "other"


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "no interval"
    return f"95% interval {percent(interval.low)}{RANGE}{percent(interval.high)}"

"""Paired differences as charts around zero: a dot, its interval, the tolerance, and what it means in a word."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from univert.core.errors import BadInputError
from univert.metrics.compare import Comparison, Difference, Verdict
from univert.report.charts import Scale
from univert.report.number_format import count, points
from univert.report.tables import SPECIALISTS, Row

_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_TICKS = 6

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A difference placed on a chart; places in percent of the width.

    Attributes:
        at: its place.
        low: left end of its interval.
        high: right end.
        change: the difference in points, signed.
        interval: its interval in words.
        first: the first model's figure, a share of 1.
        second: the second's.
        verdict: of the second.
    """

    at: float
    low: float
    high: float
    change: str
    interval: str
    first: float
    second: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class DifferenceLine:
    """A line of a chart: one gallery, or one of several changes.

    Attributes:
        name: its label.
        note: small print beside it.
        mark: the difference of Recall@1 (of a member: of the figure it was judged by); None where there is none.
        precision: the difference of MAP@R in points, signed; None where it is not told.
        precision_verdict: what it means.
        emphasised: whether it sums the others up.
    """

    name: str
    note: str
    mark: Mark | None
    precision: str | None = None
    precision_verdict: Verdict = "same"
    emphasised: bool = False


@dataclass(frozen=True, kw_only=True)
class DifferenceChart:
    """Lines on a common scale around zero.

    Attributes:
        scale: the axis, in shares of 1.
        zero: place of no difference.
        band: left and right end of what counts as the same.
        lines: from top to bottom.
    """

    scale: Scale
    zero: float
    band: tuple[float, float]
    lines: tuple[DifferenceLine, ...]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A paired comparison of two rows of the results.

    Attributes:
        title: for people.
        first: key of the row that is compared against.
        second: key of the row that is judged.
        names: what people call the two.
        comparison: what was found.
        chart: the same as a chart.
    """

    title: str
    first: str
    second: str
    names: tuple[str, str]
    comparison: Comparison
    chart: DifferenceChart

    @property
    def routed(self) -> bool:
        """Whether one of the two was told the true vertical of each query."""
        return SPECIALISTS in (self.first, self.second)


def read_part(results: Mapping[str, Any], key: str, read: Callable[[Any], Part]) -> Part | None:
    """One of the results' optional parts; None where the run has none.

    Raises:
        BadInputError: the part is there and is not what it should be.
    """
    if not results.get(key):
        return None
    try:
        return read(results[key])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInputError(
            f"results[{key!r}] is not what a run writes ({type(error).__name__}: {error}); train again"
        ) from None


def read_comparisons(results: Mapping[str, Any], rows: Sequence[Row]) -> list[Paired]:
    """The paired comparisons out of `evaluation.json`; none in older ones.

    Raises:
        BadInputError: they are not what a run writes.
    """
    titles = {row.key: row.title for row in rows}
    found = read_part(results, "comparisons", lambda values: [_paired(one, titles) for one in values])
    return found or []


def chart_of(comparison: Comparison, *, routed: bool = False) -> DifferenceChart:
    """A comparison as a chart: all queries together, then the verticals, the largest gain first.

    Args:
        comparison: what was found.
        routed: each query searched its own vertical alone, also where all are taken together.
    """
    by_gain = sorted(comparison.verticals.items(), key=lambda one: (-one[1]["recall_at_1"].difference, one[0]))
    figures = [("All, each in its vertical" if routed else "Merged gallery", comparison.merged), *by_gain]
    scale = scale_around_zero([one["recall_at_1"] for _, one in figures], tolerance=comparison.tolerance)
    lines = [
        DifferenceLine(
            name=name,
            note=count(one["recall_at_1"].queries, "query"),
            mark=mark_of(one["recall_at_1"], scale),
            precision=points(one["map_at_r"].difference),
            precision_verdict=one["map_at_r"].verdict,
            emphasised=one is comparison.merged,
        )
        for name, one in figures
    ]
    return chart(lines, scale, tolerance=comparison.tolerance)


def chart(lines: Sequence[DifferenceLine], scale: Scale, *, tolerance: float) -> DifferenceChart:
    """Lines that were placed on a scale, as a chart."""
    band = (scale.place(-tolerance), scale.place(tolerance))
    return DifferenceChart(scale=scale, zero=scale.place(0.0), band=band, lines=tuple(lines))


def mark_of(difference: Difference, scale: Scale) -> Mark:
    """Place a difference and its interval on a scale."""
    return Mark(
        at=scale.place(difference.difference),
        low=scale.place(difference.low),
        high=scale.place(difference.high),
        change=points(difference.difference),
        interval=interval_words(difference),
        first=difference.first,
        second=difference.second,
        verdict=difference.verdict,
    )


def scale_around_zero(differences: Sequence[Difference], *, tolerance: float) -> Scale:
    """A scale with round limits that holds zero, the tolerance, and all differences with their intervals."""
    ends = [end for one in differences for end in (one.low, one.difference, one.high)]
    low, high = min([*ends, -tolerance]), max([*ends, tolerance])
    step = next((step for step in _STEPS if (high - low) / step <= _MOST_TICKS), _STEPS[-1])
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    ticks = tuple(
        (round(100 * (place - first) / (last - first), 2), _tick(place * step)) for place in range(first, last + 1)
    )
    return Scale(low=first * step, high=last * step, ticks=ticks)


def interval_words(difference: Difference) -> str:
    """The interval of a difference in points: `+0.4 to +3.0`."""
    return f"{points(difference.low)} to {points(difference.high)}"


def _tick(value: float) -> str:
    text = points(value)
    return "0" if value == 0 else text.removesuffix(".0")


def _paired(values: Mapping[str, Any], titles: Mapping[str, str]) -> Paired:
    comparison = Comparison.from_dict(values["comparison"])
    first, second = values["first"], values["second"]
    return Paired(
        title=values["title"],
        first=first,
        second=second,
        names=(titles.get(first, first), titles.get(second, second)),
        comparison=comparison,
        chart=chart_of(comparison, routed=SPECIALISTS in (first, second)),
    )

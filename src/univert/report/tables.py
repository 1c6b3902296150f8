"""The comparison as tables of cells: values with their intervals, which is best, how far from the specialists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from univert.metrics.compare import METRIC_NAMES, UNSEEN_BRANDS, Comparison, Figures
from univert.metrics.evaluate import Interval, Metrics

if TYPE_CHECKING:
    from univert.training.evaluation import ComparedModel

_TITLE = UNSEEN_BRANDS.capitalize()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of a table.

    Attributes:
        interval: the value and its 95% interval, shares of 1; None where there were no queries.
        best: whether it is the best of its column or row, as displayed.
        gap: value minus that of the specialists, a share of 1; None where that says nothing.
    """

    interval: Interval | None
    best: bool = False
    gap: float | None = None


def gallery_lines(comparison: Comparison, routed: bool) -> list[tuple[str, Figures]]:
    """All queries together (`routed`: each in its own vertical), then the verticals, the largest gain first.

    Between them, where there are any, the queries of brands never seen.
    """
    together = "All, each in its vertical" if routed else "Merged gallery"
    by_gain = sorted(comparison.verticals.items(), key=lambda one: (-one[1]["recall_at_1"].difference, one[0]))
    unseen = comparison.unseen_brands
    return [(together, comparison.merged), *([] if unseen is None else [(_TITLE, unseen)]), *by_gain]


def recall_at_1(metrics: Metrics | None) -> Interval | None:
    """Recall@1, or None where there were no queries."""
    return None if metrics is None else metrics.recall_at[1]


def comparison_table(models: Sequence[ComparedModel]) -> tuple[tuple[str, ...], list[tuple[ComparedModel, list[Cell]]]]:
    """Column titles, and each model's merged Recall@K, MAP@R and NMI and its mean Recall@1 within the verticals.

    Where there are queries of brands never seen, their Recall@1 and MAP@R come before the last. The specialists are
    told the true vertical, so in the merged gallery they do not compete for best.
    """
    there = any(one.evaluation.unseen_brands for one in models)
    of_unseen = [f"{_TITLE}, {name}" for name in METRIC_NAMES.values()] if there else []
    columns = (
        *(f"R@{k}" for k in models[0].evaluation.merged.recall_at),
        "MAP@R",
        "NMI",
        *of_unseen,
        "Mean within R@1",
    )
    figures = []
    for one in models:
        merged = one.evaluation.merged
        within = Interval(one.evaluation.mean_within["recall_at_1"])
        unseen = one.evaluation.unseen_brands
        pair = [recall_at_1(unseen), None if unseen is None else unseen.map_at_r] if there else []
        figures.append([*merged.recall_at.values(), merged.map_at_r, merged.nmi, *pair, within])
    merged_only = [index for index, one in enumerate(models) if not one.row.routed]
    best = [
        _best([row[column] for row in figures], range(len(models)) if column == len(columns) - 1 else merged_only)
        for column in range(len(columns))
    ]
    return columns, [
        (one, [Cell(interval=value, best=index in best[column]) for column, value in enumerate(row)])
        for index, (one, row) in enumerate(zip(models, figures, strict=True))
    ]


def vertical_table(models: Sequence[ComparedModel]) -> list[tuple[str, int, list[Cell]]]:
    """Each vertical, its queries, and every model's Recall@1 in its own gallery, with gaps to the specialists."""
    specialists = next((one.evaluation for one in models if one.row.routed), None)
    lines = []
    for name, metrics in models[-1].evaluation.verticals.items():
        values = [recall_at_1(one.evaluation.verticals.get(name)) for one in models]
        own = recall_at_1(specialists.verticals.get(name)) if specialists else None
        winners = _best(values, range(len(models)))
        cells = [
            Cell(
                interval=value,
                best=index in winners,
                gap=value.value - own.value if value and own and not models[index].row.routed else None,
            )
            for index, value in enumerate(values)
        ]
        lines.append((name, metrics.queries if metrics else 0, cells))
    return lines


def _best(values: Sequence[Interval | None], competing: Iterable[int]) -> set[int]:
    """Which share the first place, as displayed: to a tenth of a percent."""
    shown = {index: round(value.value, 3) for index in competing if (value := values[index]) is not None}
    if len(shown) < 2:
        return set()
    return {index for index, value in shown.items() if value == max(shown.values())}

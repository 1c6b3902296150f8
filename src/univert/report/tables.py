"""The comparison as tables of cells: values, intervals, which is best, how far from the specialists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from univert.core.errors import BadInputError
from univert.metrics.figures import Interval, Metrics

SPECIALISTS = "specialists"
ROUTED = (SPECIALISTS, "groups")
"""The rows whose models are told the true vertical of a query."""
"""Key of the row whose models are told the query's true vertical."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compared model.

    Attributes:
        key: its name in the results.
        title: its name for people.
        note: what is special about it.
        merged: its figures when every query searches all verticals; None where there were no queries.
        verticals: its figures when a query searches its own vertical; None for one without queries.
        mean_within: the mean of each figure over the verticals.
        image_presentations: images it saw in training, repeats counted; None if unknown.
        seconds: its training time; None if unknown.
    """

    key: str
    title: str
    note: str
    merged: Metrics | None
    verticals: dict[str, Metrics | None]
    mean_within: dict[str, float]
    image_presentations: int | None
    seconds: float | None

    @property
    def routed(self) -> bool:
        """Whether the true vertical was given with each query, which no deployed model has."""
        return self.key in ROUTED


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of a table.

    Attributes:
        interval: the value and its 95% interval, shares of 1; None where there were no queries.
        best: whether it is the best of its column or row, as displayed.
        gap: value minus that of the specialists, a share of 1; None where that says nothing.
        gap_is_clear: whether the two intervals lie apart.
    """

    interval: Interval | None
    best: bool = False
    gap: float | None = None
    gap_is_clear: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a table: its name and its cells."""

    name: str
    cells: tuple[Cell, ...]
    queries: int = 0
    products: int = 0
    row: Row | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: column titles, and lines with one cell a column."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def read_rows(results: Mapping[str, Any]) -> list[Row]:
    """The compared models out of `evaluation.json`.

    Raises:
        BadInputError: the content is not that of an `evaluation.json`.
    """
    try:
        return [_read_row(row) for row in results["rows"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInputError(
            f"results: not the content of an evaluation.json ({type(error).__name__}: {error}); evaluate again"
        ) from None


def recall_at_1(metrics: Metrics | None) -> Interval | None:
    """Recall@1, or None where there were no queries."""
    return None if metrics is None else metrics.recall_at.get(1)


def comparison_table(rows: Sequence[Row]) -> Table:
    """Rows x (merged Recall@K, MAP@R, NMI, mean Recall@1 within the verticals).

    The specialists are told the true vertical, so in the merged gallery they do not compete for best.
    """
    ks = sorted({k for row in rows if row.merged for k in row.merged.recall_at})
    columns = [*(f"R@{k}" for k in ks), "MAP@R", "NMI", "Mean within R@1"]
    figures = [_figures(row, ks) for row in rows]
    best: list[set[int]] = []
    for column in range(len(columns)):
        within = column == len(columns) - 1
        competing = [index for index, row in enumerate(rows) if within or not row.routed]
        best.append(_best([figures[index][column] for index in range(len(rows))], competing))
    lines = [
        Line(
            name=row.title,
            row=row,
            cells=tuple(
                Cell(interval=figures[index][column], best=index in best[column]) for column in range(len(columns))
            ),
        )
        for index, row in enumerate(rows)
    ]
    return Table(columns=tuple(columns), lines=tuple(lines))


def vertical_table(rows: Sequence[Row]) -> Table:
    """Verticals x rows: Recall@1 in each vertical's own gallery, with differences to the specialists."""
    names = sorted({name for row in rows for name in row.verticals})
    specialists = next((row for row in rows if row.routed), None)
    lines = []
    for name in names:
        metrics = [row.verticals.get(name) for row in rows]
        values = [recall_at_1(one) for one in metrics]
        own = recall_at_1(specialists.verticals.get(name)) if specialists else None
        winners = _best(values, range(len(rows)))
        known = next((one for one in metrics if one is not None), None)
        lines.append(
            Line(
                name=name,
                queries=known.queries if known else 0,
                products=known.products if known else 0,
                cells=tuple(
                    Cell(
                        interval=value,
                        best=index in winners,
                        gap=value.value - own.value if value and own and not rows[index].routed else None,
                        gap_is_clear=bool(value and own and lie_apart(value, own)),
                    )
                    for index, value in enumerate(values)
                ),
            )
        )
    return Table(columns=tuple(row.title for row in rows), lines=tuple(lines))


def lie_apart(one: Interval, other: Interval) -> bool | None:
    """Whether two 95% intervals lie apart; None if either has none.

    Apart is the stricter question: intervals that overlap a little can still belong to a real difference.
    """
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    return one.low > other.high or other.low > one.high


def _read_row(row: Mapping[str, Any]) -> Row:
    def metrics(values: dict[str, Any] | None) -> Metrics | None:
        return None if values is None else Metrics.from_dict(values)

    evaluation = row["evaluation"]
    return Row(
        key=row["key"],
        title=row.get("title") or row["key"],
        note=row.get("note") or "",
        merged=metrics(evaluation["merged"]),
        verticals={name: metrics(values) for name, values in evaluation["verticals"].items()},
        mean_within={name: float(value) for name, value in evaluation["mean_within"].items()},
        image_presentations=row.get("image_presentations"),
        seconds=row.get("seconds"),
    )


def _figures(row: Row, ks: Sequence[int]) -> list[Interval | None]:
    merged = row.merged
    mean = row.mean_within.get("recall_at_1")
    within = None if mean is None else Interval(value=mean, low=None, high=None)
    if merged is None:
        return [*(None for _ in ks), None, None, within]
    return [*(merged.recall_at.get(k) for k in ks), merged.map_at_r, merged.nmi, within]


def _best(values: Sequence[Interval | None], competing: Sequence[int]) -> set[int]:
    """Which share the first place, as displayed: to a tenth of a percent."""
    shown = {index: round(value.value, 3) for index in competing if (value := values[index]) is not None}
    if len(shown) < 2:
        return set()
    return {index for index, value in shown.items() if value == max(shown.values())}

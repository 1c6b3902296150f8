"""Paired comparison of two models: the same queries, resampled by product.

Two models are far better told apart by what happens to each single query than by their two averages: what
makes a query hard is the same for both. The difference of a figure over the queries is therefore resampled, whole
products at a time, since images of one product succeed and fail together.

- The interval is the percentile interval of the bootstrap.
- The p-value is two-sided, by flipping the signs of whole products' changes. It is never below 2^(1 - n) for n
  products whose queries changed, so that a handful of products alone is never called significant.
- Where there are several verticals, their p-values are corrected by Holm's method (Holm 1979): the chance that any
  of them is called different without being so stays below 1 - level. The merged gallery is a question of its own.
- `worse` needs both: a significant difference, and one larger than the tolerance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from univert.core.errors import BadInputError
from univert.metrics.bootstrap import bootstrap_means
from univert.metrics.inputs import Vectors, check_length
from univert.metrics.per_query import Names, Outcomes, average_precision, query_outcomes
from univert.metrics.ranking import QueryOutcome
from univert.metrics.significance import holm, sign_flip_p_value

Metric = Literal["recall_at_1", "map_at_r"]
Verdict = Literal["better", "same", "worse"]
METRICS: tuple[Metric, ...] = get_args(Metric)
METRIC_NAMES: dict[Metric, str] = {"recall_at_1": "R@1", "map_at_r": "MAP@R"}
"""What people call the metrics."""
LARGE_FALL = 0.1
"""A fall by more (ten points) counts as a loss, where nothing else is set, even if few products prove nothing."""
MERGED = "merged"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one figure differs between two models on one gallery.

    Attributes:
        metric: `recall_at_1` or `map_at_r`.
        first: the figure of the first model.
        second: of the second.
        difference: second minus first.
        low: lower end of its interval, not corrected for the number of verticals.
        high: upper end.
        p_value: of no difference, two-sided.
        p_adjusted: corrected for the number of verticals.
        verdict: of the second model.
        queries: number of queries.
        products: number of products they show.
    """

    metric: Metric
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    verdict: Verdict
    queries: int
    products: int

    def is_loss(self, limit: float) -> bool:
        """Whether the second model is worse, or has fallen by more than `limit`, however few the products.

        Few products can hardly prove anything: without a limit a model could lose all of a small vertical and pass.
        """
        return self.verdict == "worse" or self.difference < -limit

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Difference:
        """What `to_dict` gave, back again."""
        return cls(**values)


Figures = dict[Metric, Difference]
"""The differences of one gallery, by metric."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two models differ, merged over the verticals and within each.

    Attributes:
        merged: by metric.
        verticals: by vertical and metric; verticals without queries are left out.
        tolerance: differences up to this much count as the same.
        level: of intervals and of the tests (1 - level is the chance of a false alarm).
    """

    merged: Figures
    verticals: dict[str, Figures]
    tolerance: float
    level: float

    def worse(self, metric: Metric = "recall_at_1") -> list[str]:
        """The verticals in which the second model is worse, and `merged` where it is so there."""
        named = [*self.verticals.items(), (MERGED, self.merged)]
        return [name for name, figures in named if figures[metric].verdict == "worse"]

    def worse_in_any(self) -> list[str]:
        """Where the second model is worse in either figure, sorted; see `worse`."""
        return sorted({name for metric in METRICS for name in self.worse(metric)})

    def losses(self, limit: float) -> list[tuple[str, Difference]]:
        """Where the second model is worse, or has fallen by more than `limit`, with what it lost; see `is_loss`."""
        named = [*self.verticals.items(), (MERGED, self.merged)]
        return [(name, one) for name, figures in named for one in figures.values() if one.is_loss(limit)]

    def mean_within(self, metric: Metric = "recall_at_1") -> float:
        """The plain mean of the difference over the verticals."""
        return float(np.mean([figures[metric].difference for figures in self.verticals.values()]))

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """What `to_dict` gave, back again.

        Raises:
            BadInputError: it is not a comparison.
        """
        try:
            return cls(
                merged=read_figures(values["merged"]),
                verticals={name: read_figures(figures) for name, figures in values["verticals"].items()},
                tolerance=float(values["tolerance"]),
                level=float(values["level"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"values must be what Comparison.to_dict gave, got something else ({error!r}); compare again"
            ) from None


def compare_vectors(
    first: Vectors,
    second: Vectors,
    products: Names,
    verticals: Names,
    *,
    first_routed: bool = False,
    second_routed: bool = False,
    tolerance: float = 0.01,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two models by their embeddings of the same images; a positive difference speaks for the second.

    Args:
        first: (N, D1) embeddings by the first model.
        second: (N, D2) by the second, of the same images.
        products: N products, names or codes; None or negative: unlabelled, ignored.
        verticals: N vertical names.
        first_routed: the first model's merged gallery of a query is its own vertical, as for specialists.
        second_routed: likewise for the second.
        tolerance: a difference of a figure (0 to 1) up to this much counts as the same.
        level: coverage of the intervals; differences are called significant at 1 - level.
        resamples: of the bootstrap over products, at least; many verticals need more.
        seed: of the bootstrap.

    Raises:
        BadInputError: arguments that do not fit, a product in two verticals, or no query in any vertical.

    Example:
        >>> import numpy as np
        >>> angles = np.radians([0, 10, 90, 100, 180, 190])
        >>> good = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        >>> compare_vectors(good[::-1], good, list("aabbcc"), ["hats"] * 6).merged["recall_at_1"].verdict
        'same'
    """
    check_length(second, len(first), name="second", of="first")
    outcomes = [
        query_outcomes(vectors, products, verticals, routed=routed)
        for vectors, routed in ((first, first_routed), (second, second_routed))
    ]
    return compare_outcomes(*outcomes, tolerance=tolerance, level=level, resamples=resamples, seed=seed)


def compare_outcomes(
    first: Outcomes,
    second: Outcomes,
    *,
    tolerance: float = 0.01,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two models by what happened to the same queries; see `compare_vectors`.

    Raises:
        BadInputError: the queries are not the same, or settings out of range.
    """
    settings: dict[str, Any] = {"tolerance": tolerance, "level": level, "resamples": resamples, "seed": seed}
    merged = compare_pairs({MERGED: (first.merged, second.merged)}, **settings)[MERGED]
    pairs = {
        name: (outcome, other)
        for name, outcome in first.verticals.items()
        if outcome is not None and (other := second.verticals.get(name)) is not None
    }
    return Comparison(merged=merged, verticals=compare_pairs(pairs, **settings), tolerance=tolerance, level=level)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    tolerance: float
    level: float
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise BadInputError(f"tolerance must lie in [0, 1), got {self.tolerance}; 0.01 is one point of Recall@1")
        if self.resamples < 1:
            raise BadInputError(f"resamples must be at least 1, got {self.resamples}; 2000 is usual")
        if not 0 < self.level < 1:
            raise BadInputError(f"level must lie between 0 and 1, got {self.level}; 0.95 is usual")


def compare_pairs(
    pairs: Mapping[str, tuple[QueryOutcome, QueryOutcome]],
    *,
    tolerance: float = 0.01,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Figures]:
    """Compare outcomes on several galleries, their p-values corrected together, each metric by itself.

    Args:
        pairs: by gallery, what happened to the same queries under the first model and under the second.
        tolerance: as `compare_vectors`, and so are the rest.
        level: coverage.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        BadInputError: the queries of a pair are not the same, or settings out of range.
    """
    settings = _Settings(tolerance=tolerance, level=level, resamples=resamples, seed=seed)
    found: dict[str, Figures] = {name: {} for name in pairs}
    # so that the smallest p-value there can be is still significant after the correction
    least = math.ceil(20 * len(pairs) / (1 - settings.level))
    settings = dataclasses.replace(settings, resamples=max(settings.resamples, least))
    for column, metric in enumerate(METRICS):
        plain = {name: _difference(pair, metric, column, settings) for name, pair in pairs.items()}
        adjusted = holm([difference.p_value for difference in plain.values()])
        for (name, difference), p_adjusted in zip(plain.items(), adjusted, strict=True):
            verdict = _verdict(difference.difference, p_adjusted, settings)
            found[name][metric] = dataclasses.replace(difference, p_adjusted=p_adjusted, verdict=verdict)
    return found


def _difference(
    pair: tuple[QueryOutcome, QueryOutcome], metric: Metric, column: int, settings: _Settings
) -> Difference:
    first, second = pair
    same = np.array_equal(first.rows, second.rows) and np.array_equal(first.products, second.products)
    if not same:
        raise BadInputError(
            f"both models must have the same queries, got {len(first)} and {len(second)}; "
            "embed the same selection of the catalogue with both"
        )
    values = [_figures(outcome, metric) for outcome in pair]
    changes = values[1] - values[0]
    means = bootstrap_means(changes, first.products, resamples=settings.resamples, seed=settings.seed + column)
    low, high = np.quantile(means, [(1 - settings.level) / 2, (1 + settings.level) / 2])
    return Difference(
        metric=metric,
        first=float(values[0].mean()),
        second=float(values[1].mean()),
        difference=float(changes.mean()),
        low=float(low),
        high=float(high),
        p_value=sign_flip_p_value(changes, first.products, resamples=settings.resamples, seed=settings.seed + column),
        p_adjusted=1.0,
        verdict="same",
        queries=len(first),
        products=len(np.unique(first.products)),
    )


def _figures(outcome: QueryOutcome, metric: Metric) -> npt.NDArray[np.float64]:
    return outcome.hits(1).astype(np.float64) if metric == "recall_at_1" else average_precision(outcome)


def _verdict(difference: float, p_adjusted: float, settings: _Settings) -> Verdict:
    if p_adjusted >= 1 - settings.level or abs(difference) <= settings.tolerance:
        return "same"
    return "better" if difference > 0 else "worse"


def read_figures(figures: Mapping[str, Any]) -> Figures:
    """The differences of one gallery, out of their plain values."""
    return {metric: Difference.from_dict(figures[metric]) for metric in METRICS}

"""The figures of an evaluation, as they are stored and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from univert.core.errors import BadInputError


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95% interval over products; both ends are None where there is none.

    Attributes:
        value: the figure itself.
        low: the interval's lower end.
        high: its upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What retrieval and clustering give on one gallery.

    Attributes:
        recall_at: for each K the share of queries with an image of the same product among the K nearest.
        map_at_r: mean average precision at R.
        nmi: normalised mutual information; None where it was not asked for or makes no sense.
        queries: number of queries.
        products: number of products that the queries show.
    """

    recall_at: dict[int, Interval]
    map_at_r: Interval
    nmi: Interval | None
    queries: int
    products: int

    def figures(self) -> dict[str, float]:
        """The plain values by name: `recall_at_1`, ..., `map_at_r`, and `nmi` where there is one."""
        values = {f"recall_at_{k}": interval.value for k, interval in self.recall_at.items()}
        values["map_at_r"] = self.map_at_r.value
        if self.nmi is not None:
            values["nmi"] = self.nmi.value
        return values

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads it back."""
        return {
            "recall_at": {str(k): _interval_to_dict(interval) for k, interval in self.recall_at.items()},
            "map_at_r": _interval_to_dict(self.map_at_r),
            "nmi": None if self.nmi is None else _interval_to_dict(self.nmi),
            "queries": self.queries,
            "products": self.products,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Metrics:
        """What `to_dict` gave, back again."""
        return cls(
            recall_at={int(k): Interval(**interval) for k, interval in values["recall_at"].items()},
            map_at_r=Interval(**values["map_at_r"]),
            nmi=None if values["nmi"] is None else Interval(**values["nmi"]),
            queries=int(values["queries"]),
            products=int(values["products"]),
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model's figures.

    Attributes:
        merged: every query searches all verticals at once (or, if routed, its own).
        verticals: every query searches its own vertical; None for a vertical without any query.
        mean_within: the plain mean over the verticals of each figure, by the names of `Metrics.figures`.
    """

    merged: Metrics
    verticals: dict[str, Metrics | None]
    mean_within: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads it back."""
        return {
            "merged": self.merged.to_dict(),
            "verticals": {
                name: None if metrics is None else metrics.to_dict() for name, metrics in self.verticals.items()
            },
            "mean_within": dict(self.mean_within),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """What `to_dict` gave, back again.

        Raises:
            BadInputError: it is not an evaluation.
        """
        try:
            return cls(
                merged=Metrics.from_dict(values["merged"]),
                verticals={
                    name: None if metrics is None else Metrics.from_dict(metrics)
                    for name, metrics in values["verticals"].items()
                },
                mean_within={name: float(value) for name, value in values["mean_within"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"values must be what Evaluation.to_dict gave, got something else ({error!r}); run the evaluation again"
            ) from None


def _interval_to_dict(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}

"""Two versions of a model and one index: do queries by the new one find what the old one stored?

The figures of an index that grows by a vertical, all leave-one-out:

- *old-old*: the stored vectors search the stored vectors. The deployed model's embeddings, or, after repeated growth,
  those by whichever model indexed the vertical; so losses that add up are seen.
- *new-old*: the new model's queries search the stored vectors; those of the new vertical, its own.
- *new-new*: the new model on both sides, which is what indexing all anew would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from univert.metrics.compare import METRICS, Comparison, Difference, Figures, compare_outcomes, compare_pair
from univert.metrics.inputs import Vectors
from univert.metrics.per_query import Names, Outcomes, kept_rows, outcome_within, pooled, query_outcomes
from univert.metrics.ranking import QueryOutcome


@dataclass(frozen=True, kw_only=True)
class Setback:
    """A gallery whose queries the new model serves worse than the stored vectors serve themselves.

    Attributes:
        gallery: its name.
        kept: what was lost.
        reindexed: what indexing all anew would make of it; None where that was not measured.
    """

    gallery: str
    kept: Difference
    reindexed: Difference | None

    @property
    def certain(self) -> bool:
        """Whether chance is ruled out."""
        return self.kept.verdict == "worse"


@dataclass(frozen=True, kw_only=True)
class GrowthFigures:
    """What growing by one vertical does, on one split.

    Attributes:
        split: `val` or `test`.
        new_vertical: its name.
        kept: old-old to new-old within each old vertical, and deployed to new within the new one (which is not indexed
            yet: the deployed model on both sides); merged: all queries in the gallery of all verticals.
        reindexed: new-old to new-new, likewise: what indexing all anew would gain.
        old: old-old to new-old, the queries of all old verticals together, each searching its own vertical.
        old_merged: old-old to new-old, in the merged gallery of the old verticals alone.
        old_merged_reindexed: new-old to new-new, likewise.
        beside_new: the old verticals' queries in the gallery of all verticals, the new one's images in it where the
            deployed model puts them, then where the new one does.
        specialist: the new vertical's specialist to the new model, within the vertical.
        new_merged: deployed to new, the new vertical's queries in the gallery of all verticals.
        nearness: by old vertical, mean cosine of the new model's vectors with the stored ones.

    The single ones, by metric, are None where there are no queries.
    """

    split: str
    new_vertical: str
    kept: Comparison
    reindexed: Comparison
    old: Figures | None
    old_merged: Figures | None
    old_merged_reindexed: Figures | None
    beside_new: Figures | None
    specialist: Figures | None
    new_merged: Figures | None
    nearness: dict[str, float]

    def setbacks(self, limit: float) -> list[Setback]:
        """Where the new model loses Recall@1 or MAP@R: significantly, or by more than `limit`.

        Args:
            limit: of a loss that may be chance (0.1: ten points); see `Difference.is_loss`.
        """
        return [
            Setback(gallery=gallery, kept=kept[metric], reindexed=None if reindexed is None else reindexed[metric])
            for gallery, kept, reindexed in self._galleries()
            for metric in METRICS
            if kept[metric].is_loss(limit)
        ]

    def _galleries(self) -> Iterator[tuple[str, Figures, Figures | None]]:
        """Name, what is kept, and what indexing anew gives."""
        for name, kept in self.kept.verticals.items():
            yield name, kept, self.reindexed.verticals[name]
        for name, together, anew in (
            ("the old verticals, each within itself", self.old, None),
            ("the old verticals merged", self.old_merged, self.old_merged_reindexed),
            ("the old verticals' queries among all images", self.beside_new, None),
            ("all verticals merged", self.kept.merged, self.reindexed.merged),
        ):
            if together is not None:
                yield name, together, anew

    def unmeasured(self) -> list[str]:
        """The verticals without any query, about which nothing can be said."""
        return [name for name in [*self.nearness, self.new_vertical] if name not in self.kept.verticals]


def growth_figures(
    split: str,
    new_vertical: str,
    *,
    stored: Vectors,
    new: Vectors,
    specialist: Vectors,
    products: Names,
    verticals: Sequence[str],
    tolerance: float = 0.01,
    resamples: int = 2000,
    seed: int = 0,
) -> GrowthFigures:
    """Measure a growth on the images of one split.

    The `stored` vectors (N, D) are those in the index, the new vertical's by the deployed model; the `new` ones (N, D)
    are of the same images; the `specialist` ones (M, E) of the new vertical's images alone.

    Raises:
        BadInputError: arguments that do not fit, or no query in any vertical.
    """
    settings: dict[str, Any] = {"tolerance": tolerance, "resamples": resamples, "seed": seed}

    added = np.array([vertical == new_vertical for vertical in verticals], dtype=bool)
    grown = np.where(added[:, None], new, stored)
    before = query_outcomes(stored, products, verticals)
    after = query_outcomes(new, products, verticals, stored=grown)
    reindexed = query_outcomes(new, products, verticals)
    old = [name for name in before.verticals if name != new_vertical]
    rows, new_rows = np.flatnonzero(~added), np.flatnonzero(added)
    old_old, new_old, new_new = (
        outcome_within(queries[rows], before.codes[rows], rows, gallery[rows])
        for queries, gallery in ((stored, stored), (new, stored), (new, new))
    )
    return GrowthFigures(
        split=split,
        new_vertical=new_vertical,
        kept=compare_outcomes(before, after, **settings),
        reindexed=compare_outcomes(after, reindexed, **settings),
        old=compare_pair(_pool_of(before, old), _pool_of(after, old), **settings),
        old_merged=compare_pair(old_old, new_old, **settings),
        old_merged_reindexed=compare_pair(new_old, new_new, **settings),
        beside_new=compare_pair(kept_rows(before.merged, ~added), kept_rows(after.merged, ~added), **settings),
        specialist=compare_pair(
            outcome_within(specialist, before.codes[new_rows], new_rows),
            reindexed.verticals.get(new_vertical),
            **settings,
        ),
        new_merged=compare_pair(kept_rows(before.merged, added), kept_rows(after.merged, added), **settings),
        nearness={
            name: float(np.mean(np.sum(stored[rows] * new[rows], axis=1)))
            for name, rows in before.rows.items()
            if name != new_vertical
        },
    )


def _pool_of(outcomes: Outcomes, names: list[str]) -> QueryOutcome | None:
    chosen = {name: outcomes.verticals[name] for name in names if outcomes.verticals[name] is not None}
    return pooled(chosen) if chosen else None

"""Queries by cross-fitting: every labelled training product is held out once, and its images are queries then.

A vertical has some tens of validation queries, too few to see a loss of a few points; and a training keeps the weights
that do best on them, which flatters small models on just these queries. Held-out training products are several times
as many, and nothing was chosen on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from univert.data.samplers import Positions
from univert.metrics.per_query import outcome_within, pooled
from univert.metrics.ranking import QueryOutcome
from univert.training.run_context import RunContext

Embed = Callable[[Positions], Float[np.ndarray, "B D"]]
Measured = Mapping[str, QueryOutcome]
"""What happened to the queries of each vertical, searched within it; a vertical without queries is absent."""

_PURPOSE = 7  # tells these draws from others of the same seed


class Folds:
    """Which products are held out from which of several trainings.

    In a vertical with too few products to hold any out, all learn in every training, and the validation images are
    the queries.

    Two or more trainings, `folds`, share the products among them. Of a vertical at most `most_images` labelled training
    images take part (None: all); whole products are left out.
    """

    def __init__(self, context: RunContext, folds: int, *, most_images: int | None = None) -> None:
        self._context = context
        self.trainings = folds
        count = len(context.images.catalogue)
        self._fold: Int64[np.ndarray, "N"] = np.full(count, -1, np.int64)
        self._takes_part: Bool[np.ndarray, "N"] = np.ones(count, bool)
        for number in range(len(context.images.vertical_names)):
            here = np.flatnonzero(self._labelled & context.images.is_train & (context.images.verticals == number))
            names, product, images = np.unique(context.images.products[here], return_inverse=True, return_counts=True)
            rng = np.random.default_rng((context.recipe.seed, _PURPOSE, number))
            order = rng.permutation(len(names))
            if most_images is not None:
                chosen = order[np.cumsum(images[order]) <= max(most_images, images[order[:4]].sum())]
                self._takes_part[here] = np.isin(product, chosen)
                order = chosen
            # products with a pair first, so that each fold gets its share of them
            order = order[np.argsort(images[order] < 2, kind="stable")]
            pairs = int((images[order] > 1).sum())
            if pairs >= folds and pairs - -(-pairs // folds) >= 2:
                fold = np.full(len(names), -1)
                fold[order] = np.arange(len(order)) % folds
                self._fold[here] = fold[product]

    @cached_property
    def _labelled(self) -> Bool[np.ndarray, "N"]:
        return np.asarray(self._context.images.products >= 0)

    def among(self, verticals: Iterable[str], training: int) -> Bool[np.ndarray, "N"]:
        """Images of some verticals that one of the trainings may look at, those that choose its best step included."""
        numbers = [self._context.images.vertical_names.index(name) for name in verticals]
        here = np.isin(self._context.images.verticals, numbers)
        return np.asarray(here & self._takes_part & (self._fold != training))

    def queries(self, vertical: str, training: int) -> Positions:
        """The images of a vertical that are queries and gallery for the model of one of the trainings."""
        here = self._context.images.of_vertical(vertical) & self._labelled & self._takes_part
        if (self._fold[here] >= 0).any():
            return np.flatnonzero(here & (self._fold == training))
        return np.flatnonzero(here & (self._context.images.splits == "val"))

    def measure(self, verticals: Iterable[str], models: Iterable[tuple[int, Embed]]) -> Measured:
        """What happens to the queries of each vertical, searched within it.

        `models` are the number of a training and the model it gave. A query counts once for each model it is shown to,
        all under its one product.
        """
        found: dict[str, list[QueryOutcome]] = {name: [] for name in verticals}
        for turn, (training, embed) in enumerate(models):
            for name, outcomes in found.items():
                positions = self.queries(name, training)
                if len(positions):
                    codes = self._context.images.products[positions]
                    rows = positions + turn * len(self._fold)
                    queries = self._context.images.asking(positions)
                    outcome = outcome_within(embed(positions), codes, rows, queries=queries)
                    outcomes += [] if outcome is None else [outcome]
        return {
            name: pooled({str(i): outcome for i, outcome in enumerate(outcomes)})
            for name, outcomes in found.items()
            if outcomes
        }

    def kept(
        self,
        stage: str,
        inputs: str,
        verticals: Sequence[str],
        models: Callable[[tuple[str, ...]], Iterable[tuple[int, Embed]]],
    ) -> Measured:
        """What `measure` gives, kept with the run as a stage; `inputs` are all that the models depend on."""
        names = tuple(sorted(verticals))
        record = self._context.stages.remembered(
            stage, [inputs, *names], lambda: _to_plain(self.measure(names, models(names)))
        )
        return {name: _outcome(columns) for name, columns in record.items()}


_COLUMNS = {"rows": int, "products": int, "rank_of_first_hit": int, "average_precision_at_r": float}


def _to_plain(measured: Measured) -> dict[str, Any]:
    return {
        name: {column: getattr(outcome, column).tolist() for column in _COLUMNS} for name, outcome in measured.items()
    }


def _outcome(columns: dict[str, list[float]]) -> QueryOutcome:
    arrays: dict[str, Any] = {name: np.asarray(columns[name], kind) for name, kind in _COLUMNS.items()}
    return QueryOutcome(**arrays)

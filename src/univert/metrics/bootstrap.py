"""How sure a figure is: percentile bootstrap over products.

Images of one product succeed and fail together, so queries are not independent draws: resampling
queries would give intervals that are too narrow. Whole products are drawn instead, and all their queries come along,
which `scipy.stats.bootstrap` cannot do: it draws single observations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from univert.core.errors import BadInputError
from univert.metrics.inputs import Codes, check_length

_MOST_DRAWS = 1 << 22


def bootstrap_interval(
    values: npt.NDArray[Any], products: Codes, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Percentile interval of the mean over queries, resampling products with replacement.

    All columns see the same resamples. For a paired comparison of two models on the same queries, pass the
    difference of their per-query values: the interval then is that of the difference.

    Args:
        values: (Q,) or (Q, M) per-query values, such as hits.
        products: (Q,) product of each query, any integer codes.
        resamples: how many.
        level: the interval's coverage, in (0, 1).
        seed: fixes the resamples.

    Returns:
        low and high end, each () or (M,) as `values` has columns. With a single product both are the mean.

    Raises:
        BadInputError: lengths that differ, no queries, values that are not finite, resamples below 1,
            or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise BadInputError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    table = np.asarray(values, dtype=np.float64)
    if table.ndim not in (1, 2) or not len(table) or not np.isfinite(table).all():
        raise BadInputError(
            f"values must be a finite (Q,) or (Q, M) array with at least one query, got shape {table.shape}; "
            "pass the per-query figures of rank_queries"
        )
    check_length(products, len(table), name="products", of="values")
    if resamples < 1:
        raise BadInputError(f"resamples must be at least 1, got {resamples}; 1000 is usual")
    _, product_of_query = np.unique(products, return_inverse=True)
    count = int(product_of_query.max()) + 1
    columns = np.column_stack([table.reshape(len(table), -1), np.ones(len(table))])
    totals = np.stack([np.bincount(product_of_query, column, minlength=count) for column in columns.T], axis=1)
    rng = np.random.default_rng(seed)
    means = []
    batch = max(1, _MOST_DRAWS // count)
    for start in range(0, resamples, batch):
        drawn = rng.integers(count, size=(min(batch, resamples - start), count))
        drawn += np.arange(len(drawn))[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        sums = times @ totals
        means.append(sums[:, :-1] / sums[:, -1:])
    ends = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = ends.reshape(2, *table.shape[1:])
    return low, high

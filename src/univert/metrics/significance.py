"""P-values of paired differences, and their correction where several are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from univert.metrics.inputs import Codes

_NOTHING = 1e-9
_ALL_SIGNS_OF = 12
_SIGNS_AT_ONCE = 256


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that may be compared with the level one by one.

    Args:
        p_values: of the single tests.

    Returns:
        the adjusted ones, in the order given; never below the plain ones, at most 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def sign_flip_p_value(changes: npt.NDArray[np.float64], products: Codes, *, resamples: int, seed: int) -> float:
    """How often chance alone would move the mean of some queries at least as far, in either direction.

    If two models are alike, what a product gains it might as well have lost: the sign of each product's change is drawn
    anew. Up to twelve products that changed, all combinations of signs are taken, else as many as asked for. Unlike
    p-values read off a bootstrap, these are not too small with few products.

    Args:
        changes: (Q,) what each query gained.
        products: (Q,) codes; the queries of a product are not independent, so they change sign together.
        resamples: how many signs are drawn for each product.
        seed: of the drawing.

    Returns:
        in (0, 1].
    """
    sums = np.bincount(np.unique(products, return_inverse=True)[1], weights=changes)
    sums = sums[np.abs(sums) > _NOTHING]  # a product whose queries gain as much as they lose says nothing
    if not len(sums):
        return 1.0
    reached = abs(float(sums.sum())) - _NOTHING
    if len(sums) <= _ALL_SIGNS_OF:
        numbers = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))
        return float((np.abs((1 - 2 * (numbers & 1)) @ sums) >= reached).mean())
    rng, as_far = np.random.default_rng(seed), 1
    for start in range(0, resamples, _SIGNS_AT_ONCE):
        shape = (min(_SIGNS_AT_ONCE, resamples - start), len(sums))
        signs = rng.integers(0, 2, size=shape, dtype=np.int8)
        as_far += int((np.abs((1 - 2 * signs) @ sums) >= reached).sum())
    return as_far / (1 + resamples)

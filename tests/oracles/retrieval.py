"""Retrieval metrics as one would write them from their definitions: loops, sorting, float64."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def ranked_relevance(
    vectors: np.ndarray,
    labels: Sequence[object],
    gallery_vectors: np.ndarray | None = None,
    gallery_labels: Sequence[object] | None = None,
    tolerance: float = 0.0,
) -> dict[int, list[bool]]:
    """For each query row, whether each ranked item is of its product; ties put the wrong ones first.

    Without labels of the gallery its rows are the queries' images, which must not find themselves.
    """
    leave_one_out = gallery_labels is None
    gallery_vectors = vectors if gallery_vectors is None else gallery_vectors
    gallery_labels = labels if gallery_labels is None else gallery_labels
    ranked = {}
    for row, label in enumerate(labels):
        if label is None:
            continue
        scored = []
        for place, other in enumerate(gallery_labels):
            if other is None or (leave_one_out and place == row):
                continue
            difference = vectors[row].astype(np.float64) - gallery_vectors[place].astype(np.float64)
            half_square = float(difference @ difference) / 2
            scored.append((half_square - (tolerance if other != label else 0.0), other == label))
        if any(relevant for _, relevant in scored):
            ranked[row] = [relevant for _, relevant in sorted(scored)]
    return ranked


def rank_of_first_hit(relevance: list[bool]) -> int:
    return relevance.index(True) + 1


def average_precision_at_r(relevance: list[bool]) -> float:
    r = sum(relevance)
    total = 0.0
    for i in range(1, r + 1):
        precision = sum(relevance[:i]) / i
        total += precision * relevance[i - 1]
    return total / r


def normalised_mutual_information(one: Sequence[int], other: Sequence[int]) -> float:
    """Proxies eq. 8."""
    n = len(one)
    p, q, pq = Counter(one), Counter(other), Counter(zip(one, other, strict=True))

    def entropy(counts: Counter[int]) -> float:
        return -sum(c / n * math.log(c / n) for c in counts.values())

    information = sum(c / n * math.log(c * n / (p[a] * q[b])) for (a, b), c in pq.items())
    return 2 * information / (entropy(p) + entropy(q))


def bootstrap_means(
    values: Sequence[float], products: Sequence[int], resamples: int, rng: np.random.Generator
) -> list[float]:
    """Means over queries of resampled products, one at a time."""
    of_product: dict[int, list[float]] = {}
    for value, product in zip(values, products, strict=True):
        of_product.setdefault(product, []).append(value)
    groups = list(of_product.values())
    means = []
    for _ in range(resamples):
        drawn = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        flat = [value for group in drawn for value in group]
        means.append(sum(flat) / len(flat))
    return means

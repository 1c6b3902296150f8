"""A catalogue on a plane: which images to draw, and where t-SNE puts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

_FEWEST_FOR_TSNE = 10
"""Below this t-SNE has no neighbourhoods to keep; the first two principal components say as much."""
_MANY_FOR_TSNE = 5_000


def sample_for_map(
    verticals: Sequence[str], products: Sequence[str | None], *, per_vertical: int, total: int, seed: int = 0
) -> Int64[np.ndarray, "M"]:
    """Choose the images to draw: a fair share for each vertical, whole products rather than stray images.

    A vertical smaller than its share is drawn whole, and what it leaves is shared by the others. Products are
    drawn in a seeded random order and enter with all their images, so that the map can show whether those lie
    together; an unlabelled image (None) counts as a product of its own. `per_vertical` and `total` are the most images
    to draw of one vertical and in all.

    Returns:
        positions in increasing order, (M,) with M <= min(N, total).
    """
    rows_of: dict[tuple[str, str | int], list[int]] = {}
    for row, (vertical, product) in enumerate(zip(verticals, products, strict=True)):
        rows_of.setdefault((vertical, row if product is None else product), []).append(row)
    groups = list(rows_of.items())
    places: Counter[str] = Counter()  # of the next image within its vertical
    ranked: list[tuple[int, str, int]] = []
    for group in np.random.default_rng(seed).permutation(len(groups)):
        (vertical, _), rows = groups[group]
        ranked += [(places[vertical] + place, vertical, row) for place, row in enumerate(rows)]
        places[vertical] += len(rows)
    # the first of every vertical, then the second of each that has one, and so on
    chosen = [row for place, _, row in sorted(ranked) if place < per_vertical][:total]
    return np.sort(np.asarray(chosen, dtype=np.int64))


def tsne_map(
    vectors: Float[np.ndarray, "N D"], *, start: Float[np.ndarray, "N 2"] | None = None, seed: int = 0
) -> Float[np.ndarray, "N 2"]:
    """Lay embeddings out on a plane with t-SNE (van der Maaten and Hinton 2008), by openTSNE.

    Deterministic: its only random numbers come from `seed`. t-SNE magnifies rounding, though, so that another machine,
    or another number of threads of the linear algebra, may turn out another map of the same neighbourhoods. It takes
    half of openTSNE's usual iterations: with all of them 56% of the ten nearest images stayed among the ten nearest on
    the sample's map, with half 55%. On one core 2,000 vectors take 2 s, and 18,000 take 17 s.

    Args:
        vectors: (N, D) embeddings.
        start: (N, 2) places to start from: those of the same images on another map, so that the two can be compared
            by eye. The finished map is turned, and if need be mirrored, to lie as near to them as it can. None: the
            principal components.
        seed: of the random numbers.

    Returns:
        (N, 2) coordinates, centred, the largest absolute value 1. Fewer than ten vectors are laid out by their
        first two principal components; equal vectors all lie at the origin.
    """
    count = len(vectors)
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0) if count else centred
    if count < 2 or not np.abs(centred).max(initial=0.0) > 1e-6:
        return np.zeros((count, 2), dtype=np.float32)
    if count < _FEWEST_FOR_TSNE:
        return _rescaled(_turned(_principal_components(centred), start))
    from openTSNE import TSNE

    layout = TSNE(
        perplexity=min(30.0, (count - 1) / 3),
        initialization="pca" if start is None else _small(start),
        metric="euclidean",
        neighbors="exact",
        # Barnes-Hut for few, interpolation on a grid for many: 2 s and 8 s at 2,000, 60 s and 17 s at 18,000
        negative_gradient_method="bh" if count < _MANY_FOR_TSNE else "fft",
        early_exaggeration_iter=125,
        n_iter=250,
        n_jobs=1,
        random_state=seed,
    ).fit(centred.astype(np.float32))
    return _rescaled(_turned(np.asarray(layout, dtype=np.float64), start))


def layouts_of(spaces: Sequence[Float[np.ndarray, "N D"]], *, seed: int = 0) -> list[Float[np.ndarray, "N 2"]]:
    """Lay several spaces of the same images out: the last by itself, the others starting from its places."""
    last = tsne_map(spaces[-1], seed=seed)
    return [*(tsne_map(space, start=last, seed=seed) for space in spaces[:-1]), last]


def _principal_components(centred: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    left, scale, directions = np.linalg.svd(centred, full_matrices=False)
    # The sign of a singular vector is arbitrary: fix it, or the picture may be mirrored elsewhere.
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
    components: Float[np.ndarray, "N K"] = (left * scale * np.where(signs == 0, 1.0, signs))[:, :2]
    return np.pad(components, ((0, 0), (0, 2 - components.shape[1])))


def _small(start: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N D"]:
    """A start that t-SNE can still unfold: tiny, as its authors advise, and no two points at one place."""
    places = np.asarray(start, dtype=np.float64)
    places = places - places.mean(axis=0)
    jitter = np.random.default_rng(0).normal(size=places.shape)
    scale = float(places.std(axis=0).max())
    return np.asarray(1e-4 * (places / scale if scale > 0 else places) + 1e-6 * jitter)


def _turned(points: Float[np.ndarray, "N D"], towards: Float[np.ndarray, "N 2"] | None) -> Float[np.ndarray, "N D"]:
    """Points rotated or mirrored as a whole towards other points (orthogonal Procrustes)."""
    if towards is None:
        return points
    points = points - points.mean(axis=0)
    left, _, right = np.linalg.svd(points.T @ (towards - towards.mean(axis=0)))
    return np.asarray(points @ (left @ right))


def _rescaled(points: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N 2"]:
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    return np.asarray(points / max(float(np.abs(points).max()), 1e-12), dtype=np.float32)

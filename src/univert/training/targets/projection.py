"""Projections of learning targets to another width, and what they cost in distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

from univert.core.errors import BadInputError

ProjectionName = Literal["pca", "random"]
PAIRS = 20_000


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """What a projection does to squared distances, measured on pairs of images.

    Attributes:
        energy_kept: share of the vectors' squared length that is left, before they are made unit vectors again.
        distance_error: mean absolute change of a squared distance between unit vectors, over their mean.
        order_kept: share of pairs of pairs whose distances keep their order.
    """

    energy_kept: float
    distance_error: float
    order_kept: float


def fit_projection(
    vectors: Float[np.ndarray, "N W"], size: int, *, kind: ProjectionName = "pca", seed: int = 0
) -> Float[np.ndarray, "W D"]:
    """The linear map that takes vectors of one width to another and keeps their distances as well as it can.

    `pca`: onto the leading principal directions of the second moments about the origin, which of all orthogonal
    projections loses the least of the vectors' squared length. (About the origin and not the mean, since inner
    products of unit vectors are what counts.) `random`: a random orthogonal projection, scaled; it
    knows nothing of the data and keeps every distance up to a factor near 1 (Johnson and Lindenstrauss 1984).
    To the same width or a larger one nothing is lost: the map is an isometry.

    Args:
        vectors: to fit on (training images).
        size: D.
        kind: `pca` or `random`.
        seed: of the random directions.

    Returns:
        P, float64, to be used as `vectors @ P`.

    Raises:
        BadInputError: there are no vectors, or an unknown kind.
    """
    if vectors.ndim != 2 or not len(vectors):
        raise BadInputError(f"vectors must be an (N, W) array with at least one row, got {vectors.shape}")
    if size < 1:
        raise BadInputError(f"size must be at least 1, got {size}")
    width = vectors.shape[1]
    if kind == "random":
        square = np.random.default_rng(seed).normal(size=(max(width, size), min(width, size)))
        frame, _ = np.linalg.qr(square)
        return np.asarray(frame * np.sqrt(width / size) if size < width else frame.T)
    if kind != "pca":
        raise BadInputError(f"kind must be 'pca' or 'random', got {kind!r}")
    if size >= width:
        return np.eye(width, size)
    return principal_directions(vectors.astype(np.float64))[:, :size]


def principal_directions(vectors: Float[np.ndarray, "N W"]) -> Float[np.ndarray, "W W"]:
    """Directions of the second moments about the origin, the one with the most energy first, signs fixed."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    kept = directions[:, ::-1]
    # the sign of an eigenvector is arbitrary: fix it, so that the same data give the same space
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    return np.asarray(kept * signs)


def unit(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))


def measure_distortion(
    before: Float[np.ndarray, "N W"],
    projected: Float[np.ndarray, "N D"],
    groups: Int64[np.ndarray, "N"],
    *,
    seed: int = 0,
) -> Distortion:
    """How well a projection keeps the distances between images of one group.

    Args:
        before: unit vectors.
        projected: the same images' vectors afterwards, of any length; their unit vectors are compared.
        groups: images are compared with those of their own group alone (a vertical).
        seed: of the pairs of images that are compared, at most 20,000.

    Raises:
        BadInputError: shapes that differ, or no group with two images.
    """
    if not len(before) == len(projected) == len(groups):
        raise BadInputError(
            f"before, projected and groups must have as many rows, got {len(before)}, {len(projected)}, {len(groups)}"
        )
    left, right = _pairs(groups, seed)
    before, projected = before.astype(np.float64), projected.astype(np.float64)
    old, new = (_squared(rows, left, right) for rows in (before, unit(projected)))
    mean, half = float(old.mean()), len(left) // 2
    kept = np.sign(old[:half] - old[half : 2 * half]) == np.sign(new[:half] - new[half : 2 * half])
    return Distortion(
        energy_kept=float((projected**2).sum() / (before**2).sum()),
        distance_error=float(np.abs(new - old).mean()) / mean if mean else 0.0,
        order_kept=float(kept.mean()) if half else 1.0,
    )


def _pairs(groups: Int64[np.ndarray, "N"], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two different images of one group each."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], groups[order], side="left")
    sizes = np.searchsorted(groups[order], groups[order], side="right") - starts
    usable = np.flatnonzero(sizes > 1)
    if not len(usable):
        raise BadInputError("distances need a group with at least two vectors, got none")
    rng = np.random.default_rng(seed)
    place = usable[rng.integers(len(usable), size=PAIRS)]
    step = 1 + (rng.random(PAIRS) * (sizes[place] - 1)).astype(np.int64)
    other = starts[place] + (place - starts[place] + step) % sizes[place]
    return order[place], order[other]


def _squared(rows: Float[np.ndarray, "N D"], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.asarray(((rows[left] - rows[right]) ** 2).sum(axis=1))

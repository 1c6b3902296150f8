"""Placement: learning targets of different verticals set apart on the sphere, distances within each in their order."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

from univert.core.errors import BadInputError


def place_apart(
    vectors: Float[np.ndarray, "N D"], verticals: Int64[np.ndarray, "N"], *, count: int, offset: float
) -> Float[np.ndarray, "N E"]:
    """Unit vectors with the images of each vertical moved towards a direction of its own.

    Each row becomes (sqrt(1 - offset^2) x, offset e_v), an orthogonal map followed by an offset in dimensions
    that were not used: inner products within a vertical become (1 - offset^2) x.y + offset^2, so all distances
    there shrink by one factor and their order stays exactly as it was. The e_v are the corners of a regular
    simplex, each as far from all others as `count` directions can be.

    Args:
        vectors: unit rows.
        verticals: the vertical of each, from 0.
        count: how many verticals there are.
        offset: 0 leaves the vectors as they are, beside zeros; 1 would let nothing but the vertical count.

    Returns:
        unit rows of width E = D + `simplex_size(count)`.

    Raises:
        BadInputError: an offset outside [0, 1), or a vertical outside 0..count - 1.
    """
    if not 0 <= offset < 1:
        raise BadInputError(f"offset must lie in [0, 1), got {offset}; 0.3 sets verticals apart a little")
    if len(verticals) and not (verticals.min() >= 0 and verticals.max() < count):
        raise BadInputError(f"verticals must lie in 0..{count - 1}, got {verticals.min()}..{verticals.max()}")
    corners = simplex(count)
    return np.concatenate([np.sqrt(1 - offset**2) * vectors, offset * corners[verticals]], axis=1, dtype=vectors.dtype)


def simplex_size(count: int) -> int:
    """Dimensions that the corners of a simplex take: one fewer than corners, and one for a single corner."""
    return max(1, count - 1)


def simplex(count: int) -> Float[np.ndarray, "K E"]:
    """Unit vectors from the centre to the corners of a regular simplex: all inner products are -1 / (K - 1)."""
    if count == 1:
        return np.ones((1, 1))
    centred = np.eye(count) - 1 / count
    _, _, axes = np.linalg.svd(centred)
    corners = centred @ axes[: count - 1].T
    return np.asarray(corners / np.linalg.norm(corners, axis=1, keepdims=True))

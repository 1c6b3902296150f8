"""Rotating the specialists' spaces towards a common reference, so that one function can reproduce them all.

Specialists trained apart lie in unrelated rotations of the space. A rotation leaves all distances within a
specialist's space as they are, so its learning targets are worth the same, yet much easier to learn together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.training.targets.projection import principal_directions


def orthogonal_alignment(
    vectors: Float[np.ndarray, "N D"], reference: Float[np.ndarray, "N D"]
) -> Float[np.ndarray, "D D"]:
    """The orthogonal matrix Q that brings `vectors @ Q` nearest to `reference` in the sum of squares.

    Args:
        vectors: one row an image.
        reference: where the same images lie in the common space.

    Returns:
        Q with Q.T @ Q = 1, float64. Distances between rows of `vectors @ Q` equal those of `vectors`.

    Raises:
        BadInputError: the two differ in shape, or there are no rows.

    Source: the orthogonal Procrustes problem (Schoenemann 1966): Q = U V^T for vectors^T reference = U S V^T.
    """
    if vectors.shape != reference.shape or not len(vectors):
        raise BadInputError(f"vectors and reference must share a shape, got {vectors.shape} and {reference.shape}")
    left, _, right = np.linalg.svd(vectors.astype(np.float64).T @ reference.astype(np.float64))
    return np.asarray(left @ right)


class PCAReference:
    """The common space: the leading principal directions of unit vectors, here the untrained base network's.

    Args:
        vectors: to fit on (training images).
        size: D of the common space; missing directions are zero where the vectors have fewer.
    """

    def __init__(self, vectors: Float[np.ndarray, "N F"], size: int) -> None:
        self._mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - self._mean
        kept = principal_directions(centred)[:, :size]
        self._directions = np.zeros((vectors.shape[1], size))
        self._directions[:, : kept.shape[1]] = kept

    def __call__(self, vectors: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N D"]:
        """Where vectors lie in the common space."""
        return np.asarray((vectors - self._mean) @ self._directions)


def generalised_procrustes(
    spaces: Sequence[Float[np.ndarray, "N D"]], start: Float[np.ndarray, "N D"] | None = None, *, rounds: int = 10
) -> tuple[list[Float[np.ndarray, "D D"]], Float[np.ndarray, "N D"]]:
    """Rotate several spaces towards their common mean, so that they agree best on where the same images lie.

    Each round rotates every space towards the mean of all, and takes the mean again; the sum of squared distances to
    it never grows.

    Args:
        spaces: where each model puts the same images, all of one width.
        start: what they are rotated towards first; None takes the first of them.
        rounds: at most; it ends earlier when nothing moves any more.

    Returns:
        a rotation for each space, to be used as `space @ Q`, and the mean of the rotated spaces.

    Raises:
        BadInputError: no spaces, or spaces of different shapes.

    Source: generalised orthogonal Procrustes analysis (Gower 1975), without scaling.
    """
    if not spaces:
        raise BadInputError("spaces must hold at least one, got none")
    mean = np.asarray(spaces[0] if start is None else start, dtype=np.float64)
    previous = np.inf
    for _ in range(max(1, rounds)):
        rotations = [orthogonal_alignment(space, mean) for space in spaces]
        moved = [space @ rotation for space, rotation in zip(spaces, rotations, strict=True)]
        mean = np.mean(moved, axis=0, dtype=np.float64)
        error = float(sum(((space - mean) ** 2).sum() for space in moved))
        if error >= previous * (1 - 1e-6):
            break
        previous = error
    return rotations, mean
